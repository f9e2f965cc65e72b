"""Which API a command talks to, and as whom."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from achelous_cli.failures import Failure, usage

if TYPE_CHECKING:
    from achelous_shared.current import CurrentPlatform


@dataclass(frozen=True, slots=True)
class Connection:
    """``origin``: where ``url`` was found, for errors. ``token`` is a bearer token."""

    url: str
    origin: str
    token: str = field(repr=False)


def connection(
    url: str | None, token_file: Path | None, environment: Mapping[str, str]
) -> Connection:
    """From the options, else the environment, else the platform that runs on this machine.

    That platform's token goes to that platform only: another URL needs a token of its own.
    """
    found = url or environment.get("ACHELOUS_URL")
    token = _token(token_file, environment)
    if found:
        if token is None:
            raise usage(
                f"there is no token for {found}: name its file by --token-file or"
                " ACHELOUS_TOKEN_FILE, or set ACHELOUS_TOKEN"
            )
        origin = "--url" if url else "ACHELOUS_URL"
        return Connection(_checked(found, origin), origin, token)
    platform, origin = _current()
    token = token or _read(Path(platform.token_file), origin)
    return Connection(_checked(platform.url, origin), origin, token)


def nats_of_current(api: Connection) -> str:
    """The bus of the platform that runs on this machine, if ``api`` is that platform's."""
    platform, origin = _current()
    if platform.url != api.url or platform.nats_url_file is None:
        raise usage(f"the bus of {api.url} is not known: give --nats, or set ACHELOUS_NATS_URL")
    return _read(Path(platform.nats_url_file), origin)


def checked_nats(url: str) -> str:
    """``url``, if a bus can have it; it has a password, so that no error repeats it."""
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("nats", "tls") and parts.hostname and parts.port
    except ValueError:
        right = False
    if not right:
        raise usage("--nats is no URL of a bus: write it as in nats://USER:PASSWORD@HOST:PORT")
    return url


def _current() -> "tuple[CurrentPlatform, str]":
    """The platform that runs on this machine, and where that is written."""
    from achelous_shared import current  # msgspec takes longer to import than all else here

    try:
        platform = current.read()
    except (OSError, ValueError) as error:
        raise usage(str(error)) from error
    if platform is None:
        raise usage(
            "no API is known: give --url and --token-file, or set ACHELOUS_URL and"
            " ACHELOUS_TOKEN_FILE; nor does a platform of `achelous up` run here"
            f" (it would be named in {current.path()})"
        )
    return platform, str(current.path())


def _token(token_file: Path | None, environment: Mapping[str, str]) -> str | None:
    if token_file is not None:
        return _read(token_file, "--token-file")
    if token := environment.get("ACHELOUS_TOKEN"):
        return _sound(token, "ACHELOUS_TOKEN")
    if name := environment.get("ACHELOUS_TOKEN_FILE"):
        return _read(Path(name), "ACHELOUS_TOKEN_FILE")
    return None


def _read(path: Path, origin: str) -> str:
    try:
        return _sound(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, origin, error) from error


def _unreadable(path: Path, origin: str, error: Exception) -> Failure:
    why = error.strerror if isinstance(error, OSError) else "it is no text"
    return usage(f"the token file {path} (from {origin}) can not be read: {why}")


def _sound(token: str, origin: str) -> str:
    """The token without its line end; it must fit in an HTTP header."""
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise usage(f"{origin} holds no token: one word of printable ASCII is expected")
    return token


def _checked(url: str, origin: str) -> str:
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # brackets or a port that are none
        right = False
    if not right:
        raise usage(f"{url!r} (from {origin}) is no URL: write it as in http://127.0.0.1:8080")
    return url.rstrip("/")
