"""The platform that a user runs on this machine: written by it, read by the `achelous` command."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec


class CurrentPlatform(msgspec.Struct, frozen=True, kw_only=True):
    """Where its API is, and the file of the operator's token.

    ``nats_url_file``: of the bus, as a user who may do everything, for `achelous loadgen`.
    """

    url: str
    token_file: str
    nats_url_file: str | None = None


def path() -> Path:
    """$XDG_STATE_HOME/achelous/current.json, under ~/.local/state if that is not set."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "achelous" / "current.json"


def read() -> CurrentPlatform | None:
    """The platform, or None if there is no file; raises ValueError for a file that says nothing."""
    try:
        return msgspec.json.decode(path().read_bytes(), type=CurrentPlatform)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise ValueError(f"{path()} names no platform ({error}): remove it") from error


@contextmanager
def announced(platform: CurrentPlatform) -> Iterator[None]:
    """While inside, ``platform`` is the current one, unless another is announced after it."""
    file, mine = path(), msgspec.json.encode(platform)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = file.with_suffix(f".{os.getpid()}")
    scratch.unlink(missing_ok=True)
    scratch.touch(mode=0o600)
    scratch.write_bytes(mine)
    scratch.rename(file)  # a reader sees the whole of it or the one before
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            if file.read_bytes() == mine:
                file.unlink()
