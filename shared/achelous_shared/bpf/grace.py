"""Waiting until no program runs any more that may still look at what was just taken out."""

import ctypes
import platform
from typing import Final

from achelous_shared.bpf.errors import BpfError

_NUMBERS: Final = {"x86_64": 324, "aarch64": 283}
_GLOBAL: Final = 1
"""MEMBARRIER_CMD_GLOBAL: the kernel's synchronize_rcu()."""


def wait_for_programs() -> None:
    """Return when every eBPF program that ran at the call has ended: after some 10 ms, in which
    other threads run. Raises BpfError where the kernel has no membarrier(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_NUMBERS[platform.machine()], _GLOBAL, 0, 0):
        raise BpfError(ctypes.get_errno(), "wait for programs that run (membarrier)")
