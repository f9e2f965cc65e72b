"""A loaded eBPF program, and running it on a packet without a device (BPF_PROG_TEST_RUN)."""

import ctypes
from ctypes import c_int, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from achelous_shared.bpf.errors import check
from achelous_shared.bpf.kernel import prog_info
from achelous_shared.bpf.libbpf import libbpf

# struct __sk_buff of linux/bpf.h. On input the kernel takes mark, priority, ingress_ifindex,
# ifindex, cb, tstamp, wire_len, gso_segs, gso_size, hwtstamp; any other must be 0 (EINVAL).
SK_BUFF: Final = np.dtype(
    [(name, "<u4") for name in ("len", "pkt_type", "mark", "queue_mapping", "protocol")]
    + [(name, "<u4") for name in ("vlan_present", "vlan_tci", "vlan_proto", "priority")]
    + [(name, "<u4") for name in ("ingress_ifindex", "ifindex", "tc_index")]
    + [("cb", "<u4", (5,))]
    + [(name, "<u4") for name in ("hash", "tc_classid", "data", "data_end", "napi_id", "family")]
    + [("remote_ip4", ">u4"), ("local_ip4", ">u4")]
    + [("remote_ip6", ">u4", (4,)), ("local_ip6", ">u4", (4,))]
    + [("remote_port", ">u4"), ("local_port", "<u4"), ("data_meta", "<u4"), ("flow_keys", "<u8")]
    + [("tstamp", "<u8"), ("wire_len", "<u4"), ("gso_segs", "<u4"), ("sk", "<u8")]
    + [("gso_size", "<u4"), ("tstamp_type", "u1"), ("pad", "u1", (3,)), ("hwtstamp", "<u8")]
)
_SKB_PROGRAMS: Final = (3, 4)  # BPF_PROG_TYPE_SCHED_CLS, BPF_PROG_TYPE_SCHED_ACT
_ROOM: Final = 512  # what encapsulation may add to a packet


class _TestRunOpts(ctypes.Structure):
    _fields_ = [
        ("sz", c_size_t),
        ("data_in", c_void_p),
        ("data_out", c_void_p),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("ctx_in", c_void_p),
        ("ctx_out", c_void_p),
        ("ctx_size_in", c_uint32),
        ("ctx_size_out", c_uint32),
        ("retval", c_uint32),
        ("repeat", c_int),
        ("duration", c_uint32),
        ("flags", c_uint32),
        ("cpu", c_uint32),
        ("batch_size", c_uint32),
    ]


@dataclass(frozen=True, slots=True)
class TestResult:
    """What a run left behind. `retval` is signed, `ctx` the context afterwards (see SK_BUFF)."""

    __test__: ClassVar[bool] = False  # the name is not a test class to pytest

    retval: int
    data: bytes
    duration_ns: int
    ctx: bytes


@dataclass(frozen=True, slots=True)
class BpfProgram:
    """A program of a loaded object. The object owns `fd`; `name` is the object's, whole.

    `code_bytes`: of the machine code that runs, 0 if the kernel does not tell.
    """

    name: str
    fd: int
    id: int
    type: int
    verified_insns: int
    code_bytes: int

    @classmethod
    def of_fd(cls, name: str, fd: int) -> "BpfProgram":
        """The program behind `fd`, with what the kernel knows of it."""
        info = prog_info(fd)
        return cls(name, fd, info.id, info.type, info.verified_insns, info.jited_prog_len)

    def test_run(
        self,
        data: bytes,
        *,
        repeat: int = 1,
        ctx: bytes | None = None,
        ifindex: int | None = None,
        ingress_ifindex: int | None = None,
        mark: int | None = None,
        priority: int | None = None,
    ) -> TestResult:
        """Run on one packet (at least an Ethernet header of 14 bytes).

        For tc programs the context is `ctx`, whole (SK_BUFF's bytes) or none, with the named
        fields set in it. The kernel looks `ifindex` up in the calling thread's network namespace
        (ENODEV). Nothing is transmitted, whatever the verdict. `duration_ns` is the mean of
        `repeat` runs, which all see the packet as the run before left it.
        """
        skb = np.zeros((), SK_BUFF)
        if ctx is not None:
            skb[()] = np.frombuffer(ctx, SK_BUFF)[0]
        named = {
            "ifindex": ifindex,
            "ingress_ifindex": ingress_ifindex,
            "mark": mark,
            "priority": priority,
        }
        for field, value in named.items():
            if value is not None:
                skb[field] = value
        context = skb.tobytes() if self.type in _SKB_PROGRAMS else ctx
        return self._run(data, context, repeat)

    def _run(self, data: bytes, ctx: bytes | None, repeat: int) -> TestResult:
        out = ctypes.create_string_buffer(len(data) + _ROOM)
        ctx_size = len(ctx) if ctx else 0
        ctx_out = ctypes.create_string_buffer(ctx_size)
        opts = _TestRunOpts(
            sz=ctypes.sizeof(_TestRunOpts),
            data_in=_address(data),
            data_out=ctypes.addressof(out),
            data_size_in=len(data),
            data_size_out=len(out),
            ctx_in=_address(ctx) if ctx else None,
            ctx_out=ctypes.addressof(ctx_out) if ctx else None,
            ctx_size_in=ctx_size,
            ctx_size_out=ctx_size,
            repeat=repeat,
        )
        check(
            libbpf().bpf_prog_test_run_opts(self.fd, ctypes.byref(opts)),
            f"run program {self.name} on {len(data)} bytes",
        )
        return TestResult(
            ctypes.c_int32(opts.retval).value,
            out.raw[: opts.data_size_out],
            opts.duration,
            ctx_out.raw[: opts.ctx_size_out],
        )


def _address(data: bytes) -> Any:
    return ctypes.cast(ctypes.c_char_p(data), c_void_p)
