"""Running a few calls inside a network namespace without moving the process there."""

import asyncio
import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from achelous_shared.bpf.errors import BpfError

T = TypeVar("T")
CLONE_NEWNET: Final = 0x40000000
TIMEOUT: Final = 30.0  # seconds; attaching and opening sockets take milliseconds


class NetNs:
    """A namespace by its path (/run/netns/NAME, /proc/PID/ns/net), or None for the current one.

    Calls run one after the other on one thread that entered it. Sockets that they open stay in
    the namespace wherever they are used afterwards.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        name = f"netns-{path.name if path else 'current'}"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        if path is not None:
            try:
                self.run_sync(lambda: _enter(path))
            except BaseException:
                self.close()
                raise

    async def run(self, call: Callable[[], T], *, timeout: float = TIMEOUT) -> T:
        """The result of `call` made inside; TimeoutError after `timeout` seconds."""
        async with asyncio.timeout(timeout):
            return await asyncio.wrap_future(self._thread.submit(call))

    def run_sync(self, call: Callable[[], T], *, timeout: float = TIMEOUT) -> T:
        """As `run`, for code without an event loop."""
        return self._thread.submit(call).result(timeout)

    def close(self) -> None:
        """End the thread after the call that it is in."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _enter(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(fd, CLONE_NEWNET):
            raise BpfError(ctypes.get_errno(), f"enter network namespace {path}")
    finally:
        os.close(fd)
