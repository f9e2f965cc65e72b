"""A lab's run directory: its unique prefix, its files, and the proof that its owner still lives.

The directory is `<temp>/achelous-<prefix>`, mode 0700. Its file `lock` holds the owner's pid and
is flock()ed by the owner for its whole life, so a dead lab is recognised even when its pid has
been given to somebody else.
"""

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

_NAME = "achelous-"


class RunDir:
    """`path` for files; `prefix` ("a" and 4 hex digits) for the names of namespaces."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.prefix = path.name.removeprefix(_NAME)
        self._lock = lock

    @classmethod
    def create(cls, base: Path | None = None) -> Self:
        """A fresh directory under `base`, by default the system's directory for temporary files."""
        base = base or Path(tempfile.gettempdir())
        # Made under another name and locked there: nobody ever sees it without its owner.
        hidden = Path(tempfile.mkdtemp(prefix=f".{_NAME}", dir=base))
        lock = os.open(hidden / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.write(lock, f"{os.getpid()}\n".encode())
        while True:
            prefix = f"a{secrets.token_hex(2)}"
            taken = any(Path("/run/netns").glob(f"{prefix}-*"))
            path = base / f"{_NAME}{prefix}"
            if not taken and not path.exists():
                return cls(hidden.rename(path), lock)

    @property
    def owner_pid(self) -> int:
        return int((self.path / "lock").read_text())

    def subdir(self, name: str) -> Path:
        path = self.path / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def log(self, name: str) -> Path:
        return self.subdir("logs") / f"{name}.log"

    def close(self) -> None:
        """Remove the directory with all that is in it, and give up the ownership."""
        shutil.rmtree(self.path)
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


def stale_rundirs(base: Path | None = None) -> Iterator[RunDir]:
    """The directories of labs whose owner is dead, locked by us now: the caller closes each."""
    for path in (base or Path(tempfile.gettempdir())).glob(f"{_NAME}a*"):
        try:
            lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue  # not a lab's, or another user's
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        if os.fstat(lock).st_nlink:
            yield RunDir(path, lock)
        else:  # another sweep has just removed it
            os.close(lock)
