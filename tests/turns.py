"""Test files run side by side; a test that measures time runs by itself."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Turns:
    """Of the processes of one run, by locks on two files in `directory`.

    `running` is held shared by each test, and exclusively by one that runs alone. Who waits for it
    holds `next`: so those who are behind cannot hold up one that waits to be alone.
    """

    def __init__(self, directory: Path) -> None:
        self._next, self._running = directory / "next", directory / "running"

    @contextmanager
    def turn(self, *, alone: bool) -> Iterator[None]:
        """Wait, and let nobody run beside this if it is `alone`."""
        with self._next.open("w") as first, self._running.open("w") as running:
            fcntl.flock(first, fcntl.LOCK_EX)
            fcntl.flock(running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            fcntl.flock(first, fcntl.LOCK_UN)
            yield
