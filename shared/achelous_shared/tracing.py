"""What a traced run of a packet path's program says, as messages."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv4Address
from typing import Any, Final

import numpy as np

from achelous_shared.bpf import Kind, NetNs, Run, Step, TracedPath
from achelous_shared.bpf.traced import MAX_FRAME, MIN_FRAME
from achelous_shared.frames import summary
from achelous_shared.messages import (
    BadMessage,
    TraceReply,
    TraceRequest,
    TraceStep,
    decode,
    encode,
)
from achelous_shared.routes import ip_of, mac_of

KEPT_S: Final = 30.0
"""So long the programs stay loaded after a trace: loading them takes most of its time."""

_NEXT, _DROP = -1, 2
_SENT: Final = (Kind.REDIRECT, Kind.PEER, Kind.NEIGH)
_ACTIONS: Final = {
    Kind.LOOKUP: "look up",
    Kind.UPDATE: "write",
    Kind.DELETE: "delete",
    Kind.RULE: "rule",
    Kind.REDIRECT: "send",
    Kind.PEER: "send",
    Kind.NEIGH: "send",
}
_BORN: Final = ("created_ns", "first_ns")
_USED: Final = ("last_seen_ns", "last_used_ns", "last_ns")
_SHOWN: Final[Mapping[str, tuple[str, ...]]] = {
    "config": ("vtep", "underlay_ifindex", "underlay_mtu"),
    "leases": ("ready", "lease_s"),
    "acl_sets": ("rules", "groups"),
    "ports": (
        "ifindex",
        "vni",
        "ip",
        "ip6",
        "mac",
        "mtu",
        "identity",
        "acl_in",
        "acl_out",
        "acl_gen",
        "session_limit",
    ),
}
"""Of tables with entries of which most does not matter to one packet."""
_PLAIN: Final[Mapping[str, tuple[str, str]]] = {
    "acl_sets": ("set", ""),
    "endpoints": ("", "slot"),
    "fc": ("slot", ""),
    "fc_index": ("", "slot"),
    "gateways": ("hash", "vtep"),
    "leases": ("slot", ""),
    "port_by_ifindex": ("ifindex", "slot"),
    "ports": ("slot", ""),
    "session_counts": ("slot", ""),
    "session_ring": ("place", ""),
    "vnis": ("vni", "ports"),
    "vteps": ("vtep", "kind"),
}
"""What keys and values that are plain numbers mean."""


class Tracer:
    """Runs frames in a network namespace, one at a time, through programs loaded when needed.

    ``load`` is called on the namespace's thread, and raises BpfError.
    """

    def __init__(self, load: Callable[[], TracedPath], netns: NetNs) -> None:
        self._load = load
        self._netns = netns
        self._loaded: TracedPath | None = None
        self._lock = asyncio.Lock()
        self._unload: asyncio.TimerHandle | None = None

    async def run(
        self, program: str, frame: bytes, ifindex: int, room: Mapping[str, int]
    ) -> tuple[TracedPath, Run]:
        """See `TracedPath.run`. Raises ValueError for a frame of no such length, and OSError."""
        if not MIN_FRAME <= len(frame) <= MAX_FRAME:
            raise ValueError(
                f"the frame has {len(frame)} bytes, should have {MIN_FRAME} to {MAX_FRAME}"
            )
        async with self._lock:
            if self._unload is not None:
                self._unload.cancel()
            try:
                return await self._netns.run(lambda: self._run(program, frame, ifindex, room))
            finally:
                self._unload = asyncio.get_running_loop().call_later(KEPT_S, self.close)

    def close(self) -> None:
        """Unload the programs, after the run that goes on."""
        if self._unload is not None:
            self._unload.cancel()
            self._unload = None
        self._netns.run_sync(self._close)

    def _run(
        self, program: str, frame: bytes, ifindex: int, room: Mapping[str, int]
    ) -> tuple[TracedPath, Run]:
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded, self._loaded.run(program, frame, ifindex, room)

    def _close(self) -> None:
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None


async def answer(data: bytes, trace: Callable[[TraceRequest], Awaitable[TraceReply]]) -> bytes:
    """The reply to a request, by ``trace``; garbage, and what cannot be traced, gets one that says
    so."""
    try:
        reply = await trace(decode(data, TraceRequest))
    except (BadMessage, ValueError, LookupError, OSError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error.args[0])
        reply = TraceReply(error=said)
    return encode(reply)


def reply_of(traced: TracedPath, run: Run, steps: tuple[TraceStep, ...]) -> TraceReply:
    """The verdict on a frame, but for the vNIC that it is delivered to."""
    verdict = _verdict(run)
    number = int(np.flatnonzero(run.counted["drops"])[0]) if run.counted["drops"].any() else 0
    known = number < len(traced.reasons)
    reason, words = traced.reasons[number] if known else (f"reason {number}", "")
    leaves = verdict not in ("dropped", "absorbed")
    return TraceReply(
        verdict=verdict,
        reason=reason if number else "",
        words=words if number else "",
        steps=steps,
        to_vtep=str(IPv4Address(run.frame[30:34])) if verdict == "sent" else "",
        frame=run.frame if leaves else b"",
        summary=summary(run.frame) if leaves else "",
    )


def _verdict(run: Run) -> str:
    dropped = bool(run.counted["drops"].any())
    if run.verdict == _NEXT:
        return "passed"
    if run.verdict == _DROP:
        return "dropped" if dropped else "absorbed"
    if dropped:
        return "refused"
    if any(step.kind is Kind.NEIGH for step in run.steps):
        return "sent"
    return "delivered" if run.counted.get("rx_packets") else "answered"


def device_of(run: Run) -> int:
    """The ifindex of the device that the frame is sent to; 0: it is not."""
    return next((step.device for step in reversed(run.steps) if step.kind in _SENT), 0)


def view(traced: TracedPath, step: Step, now_ns: int | None = None) -> TraceStep:
    """A step but for what only the agent knows: rules, and when a gateway confirmed an entry."""
    if not step.table:
        return TraceStep(action=_ACTIONS[step.kind], found=step.found, text=_sent_to(step))
    now_ns = time.monotonic_ns() if now_ns is None else now_ns
    key_dtype, value_dtype = traced.dtypes(step.table)
    key_name, value_name = _PLAIN.get(step.table, ("", ""))
    value = _record(step.value, value_dtype)
    names = value_dtype.names or ()
    met = step.found and step.kind is Kind.LOOKUP  # what it writes is of now
    return TraceStep(
        action=_ACTIONS[step.kind],
        table=step.table,
        key=describe(_record(step.key, key_dtype), key_dtype, key_name or "key"),
        found=step.found,
        entry=describe(value, value_dtype, value_name or "value", _SHOWN.get(step.table))
        if step.found
        else {},
        generation=int(value["generation"]) if step.found and "generation" in names else None,
        age_s=_since(value, _BORN, now_ns) if met else None,
        idle_s=_since(value, _USED, now_ns) if met else None,
    )


def describe(
    value: Any, dtype: np.dtype[Any], name: str, shown: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """The fields of a record for JSON, without times, generation and fillers.

    ``dtype``: of the value, whose byte order a scalar forgets. ``name``: of a value that is no
    record. ``shown``: only these fields.
    """
    if dtype.fields is None:
        return {name: _plain(value, dtype)}
    return {
        field: _plain(value[field], kind)
        for field, (kind, *_) in dtype.fields.items()
        if (field in shown if shown else not _is_time_or_filler(field))
    }


def _is_time_or_filler(field: str) -> bool:
    return field in ("generation", "reserved") or field.endswith("_ns")


def _plain(value: Any, dtype: np.dtype[Any]) -> Any:
    """Addresses are arrays of 16 or 6 bytes; IPv4 ones big-endian numbers of 32 bits."""
    if dtype.names is not None:
        return describe(value, dtype, "", dtype.names)
    if dtype.subdtype is not None:
        element, shape = dtype.subdtype
        if element == np.uint8 and shape == (16,):
            return str(ip_of(value.tobytes()))
        if element == np.uint8 and shape == (6,):
            return mac_of(value.tobytes())
        rest = np.dtype((element, shape[1:])) if shape[1:] else element
        return [_plain(each, rest) for each in value]
    return str(IPv4Address(int(value))) if dtype == np.dtype(">u4") else int(value)


def _record(data: bytes, dtype: np.dtype[Any]) -> Any:
    whole = data[: dtype.itemsize].ljust(dtype.itemsize, b"\0")
    return np.frombuffer(whole, dtype)[0]


def _since(value: Any, fields: tuple[str, ...], now_ns: int) -> float | None:
    for field in fields:
        if field in (value.dtype.names or ()) and value[field]:
            return max(0, now_ns - int(value[field])) / 1e9
    return None


def _sent_to(step: Step) -> str:
    how = {
        Kind.REDIRECT: "out of device",
        Kind.PEER: "out of the peer of device",
        Kind.NEIGH: "to the outer destination's neighbour, out of device",
    }
    return f"{how[step.kind]} {step.device}" if step.kind in how else ""
