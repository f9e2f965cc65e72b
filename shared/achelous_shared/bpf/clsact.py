"""Attaching by a clsact qdisc and cls_bpf: what kernels before 6.6 offer in place of TCX."""

import ctypes
import errno
from ctypes import c_int, c_size_t, c_uint32
from dataclasses import dataclass
from typing import Final

from achelous_shared.bpf.errors import check
from achelous_shared.bpf.libbpf import libbpf
from achelous_shared.bpf.programs import BpfProgram

_INGRESS: Final = 1  # enum bpf_tc_attach_point
_EGRESS: Final = 2
_REPLACE: Final = 1  # BPF_TC_F_REPLACE
# One fixed place per device and direction is what makes an attachment findable after a restart.
_HANDLE: Final = 1
_PRIORITY: Final = 1


class _Hook(ctypes.Structure):
    _fields_ = [
        ("sz", c_size_t),
        ("ifindex", c_int),
        ("attach_point", c_int),
        ("parent", c_uint32),
    ]


class _Opts(ctypes.Structure):
    _fields_ = [
        ("sz", c_size_t),
        ("prog_fd", c_int),
        ("flags", c_uint32),
        ("prog_id", c_uint32),
        ("handle", c_uint32),
        ("priority", c_uint32),
    ]


@dataclass(slots=True)
class ClsactLink:
    """A filter at our handle and priority. It needs no fd: it lives as long as its device."""

    ifindex: int
    egress: bool
    keep: bool
    fd: int = -1

    def detach(self) -> None:
        """Remove the filter; in the namespace in which it was attached."""
        opts = _Opts(sz=ctypes.sizeof(_Opts), handle=_HANDLE, priority=_PRIORITY)
        result: int = libbpf().bpf_tc_detach(
            ctypes.byref(_hook(self.ifindex, egress=self.egress)), ctypes.byref(opts)
        )
        if result not in (-errno.ENOENT, -errno.ENODEV):
            check(result, f"remove the filter of device {self.ifindex}", libbpf().take_log())

    def close(self) -> None:
        """Detach, unless it is to be kept."""
        if not self.keep:
            self.detach()


def attach_clsact(program: BpfProgram, ifindex: int, *, egress: bool, keep: bool) -> ClsactLink:
    """Attach as `attach_tcx` does; a program of ours that is there already is replaced in place."""
    hook = _hook(ifindex, egress=egress)
    result: int = libbpf().bpf_tc_hook_create(ctypes.byref(hook))
    if result != -errno.EEXIST:
        check(result, f"make a clsact qdisc on device {ifindex}", libbpf().take_log())
    opts = _Opts(
        sz=ctypes.sizeof(_Opts),
        prog_fd=program.fd,
        flags=_REPLACE,
        handle=_HANDLE,
        priority=_PRIORITY,
    )
    check(
        libbpf().bpf_tc_attach(ctypes.byref(hook), ctypes.byref(opts)),
        f"attach program {program.name} to device {ifindex} by clsact",
        libbpf().take_log(),
    )
    return ClsactLink(ifindex, egress, keep)


def _hook(ifindex: int, *, egress: bool) -> _Hook:
    return _Hook(
        sz=ctypes.sizeof(_Hook), ifindex=ifindex, attach_point=_EGRESS if egress else _INGRESS
    )


def has_clsact(ifindex: int) -> bool:
    """Whether a clsact qdisc can be made: tries it on `ifindex`, and leaves it there."""
    result: int = libbpf().bpf_tc_hook_create(ctypes.byref(_hook(ifindex, egress=False)))
    return result in (0, -errno.EEXIST)
