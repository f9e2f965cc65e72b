"""The few system calls that Python 3.11 does not offer: namespaces and mounts."""

import ctypes
import os
from pathlib import Path
from typing import Final

CLONE_NEWNET: Final = 0x40000000
_MS_BIND: Final = 4096
_MNT_DETACH: Final = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def unshare_network() -> None:
    """Give the calling thread a new network namespace."""
    _check(_libc.unshare(CLONE_NEWNET), "unshare(CLONE_NEWNET)")


def enter_network(path: Path) -> None:
    """Move the calling thread into the network namespace bound to `path`."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(fd, CLONE_NEWNET), f"setns({path})")
    finally:
        os.close(fd)


def bind_mount(source: str, target: Path) -> None:
    """Make `source` appear at `target` as well."""
    result = _libc.mount(source.encode(), os.fsencode(target), b"none", _MS_BIND, None)
    _check(result, f"mount --bind {source} {target}")


def mount(kind: str, target: Path) -> None:
    """Mount a file system that has no device, such as bpf."""
    result = _libc.mount(kind.encode(), os.fsencode(target), kind.encode(), 0, None)
    _check(result, f"mount -t {kind} {target}")


def unmount(target: Path) -> None:
    """Take the mount away now, even while it is in use."""
    _check(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"umount {target}")
