"""What gateways and hosts say they run, as last reported."""

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from achelous_shared.messages import BadMessage, GatewayApplied, HostApplied
from achelous_shared.routes import REVISION, MalformedTable, unpack

LIVE_S: Final = 3.0
"""Who has not reported for longer is not live."""

_SILENCE_S: Final = 1.5
"""Everybody reports at least every second: so long a silence of all means that nobody was heard."""


@dataclass(slots=True)
class GatewayReport:
    """A gateway as it described itself. Times are Unix seconds of this controller's clock."""

    at: float
    serving: bool
    full: bool
    """Whether it has told all of its revisions, and not only those that moved."""
    revisions: dict[int, int] = field(default_factory=dict)
    """Revision of each VNI."""


@dataclass(slots=True)
class HostReport:
    """A host as it described itself. ``at``: as above, of the last time that it said so."""

    at: float
    revision: int
    fleet_revision: int
    waiting: frozenset[UUID]
    failed: dict[UUID, str]
    routes: dict[int, int] = field(default_factory=dict)
    """Revision of each preprogrammed VPC that it follows."""
    unheld: frozenset[int] = frozenset()
    """Those of them that do not fit whole."""
    said: tuple[object, ...] = ()
    """All of it but the time, as it came."""
    down: frozenset[UUID] = frozenset()
    """vNICs that it knows of and does not run: waiting or failed."""

    def says_the_same(self, other: "HostReport") -> bool:
        """Whether nothing but the time and the revisions of VPCs differs."""
        return (self.revision, self.fleet_revision, self.waiting, self.failed) == (
            other.revision, other.fleet_revision, other.waiting, other.failed,
        )  # fmt: skip


@dataclass(slots=True)
class Moved:
    """Whose reports said something new since the last look."""

    hosts: set[UUID] = field(default_factory=set)
    vnis: set[int] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.hosts or self.vnis)


class Reports:
    """The last report of each gateway and host. A report replaces what it speaks of, even by less:
    who restarts may have to begin again.
    """

    def __init__(self, now: float) -> None:
        self.gateways: dict[UUID, GatewayReport] = {}
        self.hosts: dict[UUID, HostReport] = {}
        self.followers: dict[int, set[UUID]] = {}
        """Hosts that said to follow a preprogrammed VPC, by VNI."""
        self.listening_since = now
        """Since when reports come in without a break; who was not heard since may well live."""
        self._heard_at = float("-inf")
        self._moved = Moved()

    def gateway(self, message: GatewayApplied, at: float) -> bool:
        """Take a report; whether it said something new. Raises `BadMessage`."""
        told = _revisions(message.revisions, f"gateway {message.gateway_id}")
        self.heard(at)
        report = self.gateways.get(message.gateway_id)
        if report is None:
            report = self.gateways[message.gateway_id] = GatewayReport(at, message.serving, False)
        report.at, report.serving = at, message.serving
        moved = {vni for vni, revision in told.items() if report.revisions.get(vni) != revision}
        if message.full:
            moved |= report.revisions.keys() - told.keys()
            report.full, report.revisions = True, told
        else:
            report.revisions.update(told)
        self._moved.vnis |= moved
        return bool(moved)

    def host(self, message: HostApplied, at: float) -> bool:
        """Take a report; whether it said something new. Raises `BadMessage`."""
        before, said = self.hosts.get(message.host_id), _said(message)
        if before is not None and before.said == said:  # nearly always: a heartbeat
            self.heard(at)
            before.at = at
            return False
        routes = _revisions(message.preprogrammed, f"host {message.host_id}")
        self.heard(at)
        report = HostReport(
            at=at,
            revision=message.revision,
            fleet_revision=message.fleet_revision,
            waiting=frozenset(message.waiting),
            failed=message.failed,
            routes=routes,
            unheld=frozenset(message.unheld),
            said=said,
            down=frozenset(message.waiting).union(message.failed),
        )
        self.hosts[message.host_id] = report
        moved = self._follow(message.host_id, before.routes if before else {}, routes)
        if before is not None and report.says_the_same(before):
            return moved
        self._moved.hosts.add(message.host_id)
        return True

    def _follow(self, host: UUID, before: dict[int, int], now: dict[int, int]) -> bool:
        """Note which VPCs a host follows; whether any of them moved."""
        if before == now:
            return False
        for vni in before.keys() - now.keys():
            self.followers[vni].discard(host)
            if not self.followers[vni]:
                del self.followers[vni]
        for vni in now.keys() - before.keys():
            self.followers.setdefault(vni, set()).add(host)
        vnis = before.keys() | now.keys()
        self._moved.vnis |= {vni for vni in vnis if before.get(vni) != now.get(vni)}
        return True

    def heard(self, at: float) -> None:
        """Note that somebody reported at that time, be it read now or later."""
        if at - self._heard_at > _SILENCE_S:
            self.listening_since = at
        self._heard_at = max(at, self._heard_at)

    def take_moved(self) -> Moved:
        """What moved since the last call."""
        moved, self._moved = self._moved, Moved()
        return moved

    def keep(self, gateways: Container[UUID], hosts: Container[UUID]) -> None:
        """Forget everybody else: they are no longer registered."""
        for gateway in [who for who in self.gateways if who not in gateways]:
            del self.gateways[gateway]
        for host in [who for who in self.hosts if who not in hosts]:
            self._follow(host, self.hosts.pop(host).routes, {})


def _said(message: HostApplied) -> tuple[object, ...]:
    return (
        message.revision, message.fleet_revision, message.waiting, message.failed,
        message.preprogrammed, message.unheld,
    )  # fmt: skip


def _revisions(packed: bytes, whose: str) -> dict[int, int]:
    if not packed:
        return {}
    try:
        table = unpack(packed, REVISION)
    except MalformedTable as error:
        raise BadMessage(f"revisions of {whose}: {error}") from error
    return dict(zip(table["vni"].tolist(), table["revision"].tolist(), strict=True))
