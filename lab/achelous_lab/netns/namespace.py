"""Network namespaces, worked on by threads that live for one job each.

A thread that has entered a namespace is never used for anything else, so neither this process nor
its other threads ever leave their own.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self, TypeVar

from pyroute2 import IPRoute

from achelous_lab import syscalls

NETNS_DIR: Final = Path("/run/netns")

T = TypeVar("T")


class Namespace:
    """A named network namespace, as `ip netns` shows it. IPv6 is off in it, lo is up.

    `links.configure6` turns it on for a device.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = NETNS_DIR / name

    @classmethod
    async def create(cls, name: str) -> Self:
        """Raises FileExistsError when somebody has a namespace of that name."""
        namespace = cls(name)
        await _in_own_thread(_share_directory)
        namespace.path.touch(mode=0o400, exist_ok=False)
        try:
            await _in_own_thread(namespace._unshare_and_bind)
        except BaseException:
            namespace.remove()
            raise
        return namespace

    def _unshare_and_bind(self) -> None:
        syscalls.unshare_network()
        syscalls.bind_mount("/proc/thread-self/ns/net", self.path)
        for scope in ("all", "default"):
            setting = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
            if setting.exists():
                setting.write_text("1")
        with IPRoute() as netlink:
            netlink.link("set", index=1, state="up")

    def remove(self) -> None:
        """The kernel frees it, with all its devices, when the last process and socket leave."""
        try:
            syscalls.unmount(self.path)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):  # was not bound, or is gone
                raise
        self.path.unlink(missing_ok=True)

    async def call(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread inside."""

        def inside() -> T:
            syscalls.enter_network(self.path)
            return work()

        return await _in_own_thread(inside)

    async def netlink(self, work: Callable[[IPRoute], T]) -> T:
        """Run `work` in a thread inside, with a netlink socket."""

        def with_socket() -> T:
            with IPRoute() as netlink:
                return work(netlink)

        return await self.call(with_socket)

    async def socket(
        self, kind: int, family: int = socket.AF_INET, protocol: int = 0
    ) -> socket.socket:
        """A socket that stays in the namespace, whoever uses it. Non-blocking."""
        made = await self.call(lambda: socket.socket(family, kind, protocol))
        made.setblocking(False)
        return made

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """A file descriptor of the namespace, to make devices in it from outside."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)


def _share_directory() -> None:
    """The directory of all namespaces, shared as `ip netns add` has it, which locks it likewise.

    Where `ip` is the first to do so, it hides the mounts that are there below those of its own, and
    their files can not be removed any more.
    """
    NETNS_DIR.mkdir(exist_ok=True)
    directory = os.open(NETNS_DIR, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        syscalls.share_mounts(NETNS_DIR)
    finally:
        os.close(directory)


async def _in_own_thread(work: Callable[[], T]) -> T:
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="netns") as thread:
        return await asyncio.get_running_loop().run_in_executor(thread, work)
