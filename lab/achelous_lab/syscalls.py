"""The few system calls that Python 3.11 does not offer: namespaces and mounts."""

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

CLONE_NEWNET: Final = 0x40000000
_MS_BIND: Final = 1 << 12
_MS_REC: Final = 1 << 14
_MS_SHARED: Final = 1 << 20
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
    _mount(source, target, _MS_BIND, f"mount --bind {source} {target}")


def share_mounts(directory: Path) -> None:
    """Make `directory` a mount of its own, unless it is one, that shares those below it."""
    call = f"mount --make-rshared {directory}"
    try:
        _mount("none", directory, _MS_SHARED | _MS_REC, call)
    except OSError as error:
        if error.errno != errno.EINVAL:  # it is no mount
            raise
        _mount(str(directory), directory, _MS_BIND | _MS_REC, f"mount --rbind {directory}")
        _mount("none", directory, _MS_SHARED | _MS_REC, call)


def mount(kind: str, target: Path) -> None:
    """Mount a file system that has no device, such as bpf."""
    _mount(kind, target, 0, f"mount -t {kind} {target}", kind)


def _mount(source: str, target: Path, flags: int, call: str, kind: str = "none") -> None:
    result = _libc.mount(source.encode(), os.fsencode(target), kind.encode(), flags, None)
    _check(result, call)


def unmount(target: Path) -> None:
    """Take the mount away now, even while it is in use."""
    _check(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"umount {target}")
