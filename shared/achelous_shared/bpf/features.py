"""What this machine lacks for the eBPF packet path, in words for its operator."""

import ctypes
import os
from pathlib import Path
from typing import Final

from achelous_shared.bpf.clsact import has_clsact
from achelous_shared.bpf.libbpf import libbpf
from achelous_shared.bpf.links import has_tcx
from achelous_shared.bpf.netns import CLONE_NEWNET, NetNs

_LOOPBACK: Final = 1  # its ifindex in every namespace


def missing_for_ebpf() -> list[str]:
    """One sentence per thing that is missing; empty where the whole packet path can run."""
    missing = []
    if os.geteuid():
        missing.append(f"not root (user id {os.geteuid()}): eBPF and network namespaces need root")
    if not Path("/sys/kernel/btf/vmlinux").exists():
        missing.append("no /sys/kernel/btf/vmlinux: the kernel was built without BTF")
    if "\tbpf\n" not in Path("/proc/filesystems").read_text():
        missing.append("no bpf filesystem in /proc/filesystems: maps and links cannot be pinned")
    try:
        libbpf()
    except OSError as error:
        missing.append(f"libbpf.so.1 cannot be loaded ({error}): install the package libbpf1")
        return missing
    return missing or _probe()


def _probe() -> list[str]:
    """Try what only trying can tell, inside a namespace that ends with its thread."""
    scratch = NetNs(None)
    try:
        refused = scratch.run_sync(_unshare)
        if refused:
            return [f"network namespaces cannot be made ({os.strerror(refused)})"]
        if not has_tcx() and not scratch.run_sync(lambda: has_clsact(_LOOPBACK)):
            return ["neither TCX nor clsact in this kernel: programs cannot be attached to devices"]
        return []
    finally:
        scratch.close()


def _unshare() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.unshare(CLONE_NEWNET) else 0
