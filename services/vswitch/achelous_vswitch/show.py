"""The tables of this host as an operator sees them."""

import time
from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any, Final
from uuid import UUID

import numpy as np

from achelous_shared.messages import (
    FcView,
    GatewayView,
    PortView,
    PreprogrammedView,
    SessionView,
    ShowRequest,
    VswitchShow,
    decode_or_default,
    encode,
)
from achelous_shared.names import port_ifname
from achelous_shared.routes import ip_of, mac_of
from achelous_vswitch.agent_state import AgentState
from achelous_vswitch.dataplane import Array
from achelous_vswitch.plan import DesiredPort
from achelous_vswitch.sessions import ICMP, ICMPV6, INITIATOR_1, TCP, UDP, State, states

_PROTOCOLS: Final[Mapping[int, str]] = {ICMP: "icmp", TCP: "tcp", UDP: "udp", ICMPV6: "icmpv6"}
_STATES: Final[Mapping[State, str]] = {
    State.UDP_SENT: "unanswered",
    State.UDP_REPLIED: "answered",
    State.ICMP: "open",
    State.OTHER: "open",
}


class Shower:
    """Answers `ShowRequest`s."""

    def __init__(self, state: AgentState) -> None:
        self._state = state

    async def answer(self, data: bytes) -> bytes:
        """The reply to a request; one that is garbage gets the default's."""
        return encode(self.show(max(1, decode_or_default(data, ShowRequest).limit)))

    def show(self, limit: int) -> VswitchShow:
        """The tables, at most ``limit`` rows of each."""
        state = self._state
        return VswitchShow(
            host_id=state.host_id,
            revision=state.applier.revision,
            ports=self._ports()[:limit],
            fc=self._fc(limit),
            fc_total=len(state.cache),
            sessions=self._sessions(limit),
            sessions_total=state.sessions.total,
            gateways=self._gateways()[:limit],
            drops=state.host_drops(),
            preprogrammed=self._preprogrammed()[:limit],
        )

    def _ports(self) -> tuple[PortView, ...]:
        applier = self._state.applier
        if applier.desired is None or applier.ports is None:
            return ()
        totals = applier.ports.totals()
        views = []
        for device, want in applier.desired.ports.items():
            bound = applier.ports.bound.get(device)
            counters = totals[bound.slot] if bound else np.zeros((), totals.dtype)
            state = "waiting" if want.vnic_id in applier.waiting else "active"
            views.append(
                self._port(want, "failed" if want.vnic_id in applier.failed else state, counters)
            )
        unfit = applier.failed.keys() - {want.vnic_id for want in applier.desired.ports.values()}
        nothing = np.zeros((), totals.dtype)
        views += [self._unfit(vnic_id, nothing) for vnic_id in sorted(unfit)]
        return tuple(views)

    def _unfit(self, vnic_id: UUID, nothing: Any) -> PortView:
        """A port whose values are wrong: of what it was to be only the id can be trusted."""
        return PortView(
            vnic_id=vnic_id, device=port_ifname(vnic_id), vni=0, ip="", mac="", state="failed",
            rules_in=0, rules_out=0, **self._counted(nothing),
        )  # fmt: skip

    def _port(self, want: DesiredPort, state: str, counters: Any) -> PortView:
        return PortView(
            vnic_id=want.vnic_id,
            device=want.device,
            vni=want.config.vni,
            ip=str(ip_of(want.config.ip)),
            ip6=str(ip_of(want.config.ip6)) if want.config.ip6 else "",
            mac=mac_of(want.config.mac),
            state=state,
            rules_in=len(want.config.rules_in),
            rules_out=len(want.config.rules_out),
            **self._counted(counters),
        )

    def _counted(self, counters: Any) -> dict[str, Any]:
        names = ("tx_packets", "tx_bytes", "rx_packets", "rx_bytes", "local", "direct", "relayed")
        counted: dict[str, Any] = {name: int(counters[name]) for name in names}
        counted["drops"] = self._state.drops_by_reason(counters["drops"])
        return counted

    def _fc(self, limit: int) -> tuple[FcView, ...]:
        cache, now_ns = self._state.cache, time.monotonic_ns()
        slots = cache.used()[:limit]
        checked = cache.checked_ns(slots)
        return tuple(
            FcView(
                vni=int(entry["vni"]),
                ip=str(ip_of(entry["ip"].tobytes())),
                vtep=str(IPv4Address(int(entry["vtep"]))),
                mac=mac_of(entry["mac"].tobytes()),
                generation=int(entry["generation"]),
                revision=int(entry["revision"]),
                age_ms=(now_ns - int(checked_ns)) / 1e6,
                idle_ms=max(0, now_ns - int(entry["last_used_ns"])) / 1e6,
            )
            for entry, checked_ns in zip(cache.entries[slots], checked, strict=True)
        )

    def _sessions(self, limit: int) -> tuple[SessionView, ...]:
        keys, values, _ = self._state.dataplane.sessions.scan(None, limit)
        now_ns = time.monotonic_ns()
        pairs = zip(keys[:limit], values[:limit], strict=True)
        return tuple(session_view(key, value, now_ns) for key, value in pairs)

    def _preprogrammed(self) -> tuple[PreprogrammedView, ...]:
        preprogrammed = self._state.preprogrammed
        table = preprogrammed.table
        revisions = preprogrammed.revisions(sorted(preprogrammed.vnis)).tolist()
        return tuple(
            PreprogrammedView(
                vni=vni, revision=at, routes=table.count(vni), whole=vni not in table.lacking
            )
            for vni, at in revisions
        )

    def _gateways(self) -> tuple[GatewayView, ...]:
        gateways = self._state.gateways
        return tuple(
            GatewayView(
                gateway_id=gateway.gateway_id,
                name=gateway.name,
                vtep=str(IPv4Address(gateway.vtep)),
                live=gateway.live,
                share=gateways.share(gateway),
                rtt_us=gateway.rtt_us,
            )
            for gateway in gateways
        )


def initiator_first(session: Any) -> tuple[int, int]:
    """The sides of a session: that of the initiator, and the other one."""
    return (1, 0) if session["flags"] & INITIATOR_1 else (0, 1)


def session_view(key: Any, value: Any, now_ns: int) -> SessionView:
    """A session of the table as an operator sees it."""
    sides = initiator_first(value)
    source, destination = (_end(key, side) for side in sides)
    protocol = int(key["proto"])
    return SessionView(
        vni=int(key["vni"]),
        protocol=_PROTOCOLS.get(protocol, str(protocol)),
        source=source,
        destination=destination,
        state=_state(key, value),
        packets=_both(value["packets"], sides),
        bytes=_both(value["bytes"], sides),
        age_s=(now_ns - int(value["created_ns"])) / 1e9,
        idle_s=max(0, now_ns - int(value["last_seen_ns"])) / 1e9,
    )


def _end(key: Any, side: int) -> str:
    return f"{ip_of(key['ip'][side].tobytes())}:{int(key['port'][side])}"


def _both(counted: Array, sides: tuple[int, int]) -> tuple[int, int]:
    return int(counted[sides[0]]), int(counted[sides[1]])


def _state(key: Any, value: Any) -> str:
    (found,) = states(np.atleast_1d(key), np.atleast_1d(value))
    state = State(found)
    return _STATES.get(state, state.name.lower().replace("_", " "))
