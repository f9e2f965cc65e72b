"""What would become of a packet on this host now: answers `TraceRequest`s."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgspec
import numpy as np

from achelous_shared.bpf import Copies, Kind, Run, Step, TracedPath, dtype_of
from achelous_shared.messages import TraceReply, TraceRequest, TraceStep
from achelous_shared.routes import ip_of
from achelous_shared.tracing import answer, device_of, reply_of, view
from achelous_vswitch.agent_state import AgentState
from achelous_vswitch.classifier import ICMP, ICMPV6, TCP, UDP, Rule
from achelous_vswitch.rule_book import rule_ids
from achelous_vswitch.show import session_view

COPIES: Final = Copies(
    shared=frozenset(
        (
            "config", "ports", "leases", "port_by_ifindex", "endpoints", "vnis", "acl_sets",
            "acl_words", "fc_index", "gateways", "vteps",
        )
    ),
    whole=frozenset(
        ("fc", "session_counts", "session_ring", "session_hands", "icmp_budgets")
    ),
    asked=frozenset(("sessions", "relayed", "fragments")),
)  # fmt: skip
"""Counters and the rings of events are empty ones: nothing that a packet meets depends on them."""

_FROM_GUEST, _FROM_UNDERLAY = "from_guest", "from_underlay"
_LOCAL: Final = 1 << 31
"""C's ACH_HOP_LOCAL."""
_PLACELESS: Final = 0xFFFF
"""C's ACL_NO_RULE."""
_NO_RULE: Final = "no rule matches: denied"
_UNKNOWN_RULE: Final = "a rule that this agent has not been told yet"
_PROTOCOLS: Final[Mapping[int, str]] = {ICMP: "icmp", TCP: "tcp", UDP: "udp", ICMPV6: "icmpv6"}
_ANY_PORT: Final = (0, 0xFFFF)


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a frame comes in."""

    program: str
    ifindex: int


class TraceDesk:
    """Runs the frames that operators ask about."""

    def __init__(self, state: AgentState) -> None:
        self._state = state

    async def answer(self, data: bytes) -> bytes:
        """See `tracing.answer`."""
        return await answer(data, self._trace)

    async def _trace(self, request: TraceRequest) -> TraceReply:
        tracer = self._state.dataplane.tracer
        if tracer is None:
            raise LookupError("this host has no packet path that could be traced")
        entry = self._entry(request.vnic_id)
        traced, run = await tracer.run(
            entry.program, request.frame, entry.ifindex, {"sessions": self._room()}
        )
        now_ns = time.monotonic_ns()
        reply = reply_of(traced, run, tuple(self._view(traced, each, now_ns) for each in run.steps))
        return msgspec.structs.replace(reply, to_vnic=self._receiver(run, reply.verdict))

    def _entry(self, vnic_id: UUID | None) -> _Entry:
        if vnic_id is None:
            underlay = self._state.applier.underlay
            if underlay is None:
                raise LookupError("this host has no underlay device with an address yet")
            return _Entry(_FROM_UNDERLAY, underlay.ifindex)
        for port, bound in self._state.vnics():
            if bound == vnic_id:
                return _Entry(_FROM_GUEST, port.link.ifindex)
        raise LookupError(f"vNIC {vnic_id} does not run on this host, or waits for its device")

    def _room(self) -> int:
        """Sessions that the table still has room for."""
        counts = self._state.dataplane.session_counts
        opened, closed = (counts[name].astype(np.int64).sum() for name in ("opened", "closed"))
        return max(0, self._state.dataplane.max_sessions - int(opened - closed))

    def _receiver(self, run: Run, verdict: str) -> UUID | None:
        if verdict != "delivered":
            return None
        device = device_of(run)
        return next((one for port, one in self._state.vnics() if port.link.ifindex == device), None)

    def _view(self, traced: TracedPath, step: Step, now_ns: int) -> TraceStep:
        if step.kind is Kind.RULE:
            return self._rule(traced, step)
        seen = view(traced, step, now_ns)
        if not step.found:
            return seen
        if step.table == "fc":
            [checked_ns] = self._state.cache.checked_ns(np.array([seen.key["slot"]]))
            return msgspec.structs.replace(seen, age_s=(now_ns - int(checked_ns)) / 1e9)
        if step.table == "sessions":
            return msgspec.structs.replace(seen, entry=seen.entry | _session(traced, step))
        return seen

    def _rule(self, traced: TracedPath, step: Step) -> TraceStep:
        dtype = dtype_of(traced, "acl_query")
        query = np.frombuffer(step.key[: dtype.itemsize], dtype)[0]
        rules, place = self._state.rule_sets().get(int(query["set"])), int(query["rule"])
        rule, text = None, _NO_RULE
        if rules is not None and place < len(rules.rules):
            [rule] = rule_ids(rules, [place])
            text = rule_text(rules.rules[place], outbound=step.found)
        elif place != _PLACELESS:
            text = _UNKNOWN_RULE
        return TraceStep(
            action="rule",
            table="acl_sets",
            key=_asked(query, outbound=step.found),
            found=place != _PLACELESS,
            rule=rule,
            text=text,
        )


def _session(traced: TracedPath, step: Step) -> dict[str, Any]:
    """What a session's numbers mean: how far it has come, and the next hop towards each side."""
    key_dtype, value_dtype = traced.dtypes("sessions")
    [key] = np.frombuffer(step.key[: key_dtype.itemsize], key_dtype)
    [value] = np.frombuffer(step.value[: value_dtype.itemsize], value_dtype)
    hops = [_hop(int(hop["slot"]), int(hop["generation"])) for hop in value["hop"]]
    return {"state": session_view(key, value, 0).state, "hop": hops}


def _hop(slot: int, generation: int) -> str:
    if not slot:
        return "unknown"
    table = "ports" if slot & _LOCAL else "fc"
    return f"{table} {slot & ~_LOCAL} generation {generation}"


def _asked(query: Any, *, outbound: bool) -> dict[str, Any]:
    """What the rules were asked for."""
    service, identity = int(query["service"]), int(query["identity"])
    protocol, detail = service >> 16, service & 0xFFFF
    return {
        "direction": "outbound" if outbound else "inbound",
        "set": int(query["set"]),
        "protocol": _PROTOCOLS.get(protocol, str(protocol)),
        "remote": str(ip_of(query["remote"].tobytes())),
        **_detail(protocol, detail),
        "identity": identity if identity >= 0 else None,
    }


def _detail(protocol: int, detail: int) -> dict[str, int]:
    if protocol in (TCP, UDP):
        return {"port": detail}
    return {"type": detail >> 8, "code": detail & 0xFF} if protocol in (ICMP, ICMPV6) else {}


def rule_text(rule: Rule, *, outbound: bool) -> str:
    """A rule for people: `allow tcp 443 to 10.0.0.0/8, priority 1000`."""
    words = ["allow" if rule.allow else "deny", _PROTOCOLS.get(rule.protocol, str(rule.protocol))]
    if not rule.protocol:
        words[1] = "any protocol"
    elif (rule.first, rule.last) != _ANY_PORT:
        words.append(_range(rule))
    words += ["to" if outbound else "from", _remote(rule)]
    return f"{' '.join(words)}, priority {rule.priority}"


def _range(rule: Rule) -> str:
    if rule.protocol in (ICMP, ICMPV6):
        whole = rule.first & 0xFF == 0 and rule.last & 0xFF == 0xFF
        return f"type {rule.first >> 8}" + ("" if whole else f" code {rule.first & 0xFF}")
    return str(rule.first) if rule.first == rule.last else f"{rule.first}-{rule.last}"


def _remote(rule: Rule) -> str:
    if rule.identities is not None:
        return "members of its remote group"
    address, length = ip_of(rule.remote), rule.remote_len
    if address.version == 4 and length >= 96:
        return f"{address}/{length - 96}"
    return f"{address}/{length}"
