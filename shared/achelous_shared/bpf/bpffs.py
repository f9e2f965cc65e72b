"""The bpf filesystem, where pinned maps and links outlive the processes that made them."""

import ctypes
import fcntl
import os
from pathlib import Path
from typing import Final

from achelous_shared.bpf.errors import BpfError

_BPF_FS_MAGIC: Final = 0xCAFE4A11


def is_bpffs(path: Path) -> bool:
    """Whether `path`, which exists, lies on a bpf filesystem."""
    libc = ctypes.CDLL(None, use_errno=True)
    statfs = (ctypes.c_long * 32)()  # struct statfs, 120 bytes; f_type is its first word
    if libc.statfs(os.fsencode(path), ctypes.byref(statfs)):
        raise BpfError(ctypes.get_errno(), f"statfs {path}")
    return statfs[0] == _BPF_FS_MAGIC


def ensure_bpffs(path: Path) -> None:
    """Mount a bpf filesystem, for root alone, at `path` unless it lies on one already."""
    path.mkdir(parents=True, exist_ok=True)
    if is_bpffs(path):
        return
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Of two processes that start at once, the second must not cover the first one's pins.
        fcntl.flock(folder, fcntl.LOCK_EX)
        if is_bpffs(path):
            return
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"bpf", os.fsencode(path), b"bpf", ctypes.c_ulong(0), b"mode=0700"):
            raise BpfError(ctypes.get_errno(), f"mount a bpf filesystem at {path}")
    finally:
        os.close(folder)
