"""What becomes of pending instances, given what gateways and hosts report: pure.

| condition | BUILDING | ERROR | DELETING |
|---|---|---|---|
| host and gateways have it | ACTIVE | ACTIVE | its rows go |
| something is missing for too long | ERROR | its reason is kept true | its reason says so |
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.programming.fleet import Fleet
from achelous_controller.programming.pending import Pending
from achelous_controller.programming.reports import LIVE_S, GatewayReport, HostReport, Reports
from achelous_shared.names import port_ifname

_NAMED: Final = 5
"""Hosts named in a reason, which stays the same however many more there are behind."""
_NOBODY: Final = 2**63
"""Where those stand who are none: further than any revision."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with pending instances; who is in none of the lists goes on waiting."""

    active: list[Pending] = field(default_factory=list)
    gone: list[Pending] = field(default_factory=list)
    overdue: list[tuple[Pending, str]] = field(default_factory=list)
    """Late, with what is missing; only those whose reason does not say so yet."""


class Observed:
    """The fleet as it reports at one moment, ``now`` (Unix seconds)."""

    def __init__(self, fleet: Fleet, reports: Reports, now: float) -> None:
        self.now = now
        self.settled = now - reports.listening_since > LIVE_S
        """Whether who lives must have been heard: nobody is blamed before."""
        self._fleet = fleet
        self._reports = reports
        self._live = [
            (gateway, name, report)
            for gateway, name in fleet.gateways.items()
            if (report := self._believed(gateway)) is not None
        ]
        self._floors: dict[int, int] = {}
        self._follower_floors: dict[int, int] = {}
        self._all_heard = self.settled or fleet.hosts.keys() <= reports.hosts.keys()

    def _believed(self, gateway_id: UUID) -> GatewayReport | None:
        """What a live gateway has; nothing of one that may live, but was not heard yet."""
        report = self._reports.gateways.get(gateway_id)
        if report is not None and self.now - report.at <= LIVE_S:
            return report
        return None if self.settled else GatewayReport(at=self.now, serving=False, full=False)

    def route_floor(self, vni: int) -> int:
        """The revision of a VPC that every live gateway of its shard has.

        -1 if one has none, or none lives.
        """
        floor = self._floors.get(vni)
        if floor is None:
            floor = self._floors[vni] = min(self._revisions(vni).values(), default=-1)
        return floor

    def served(self, vni: int) -> bool:
        """Whether a gateway is registered that serves this VPC, live or not."""
        return any(self._fleet.serves(gateway, vni) for gateway in self._fleet.gateways)

    def _revisions(self, vni: int) -> dict[str, int]:
        """By name of the live gateways that serve a VPC; -1 of those that do not have it."""
        return {
            name: report.revisions.get(vni, -1)
            for gateway, name, report in self._live
            if self._fleet.serves(gateway, vni)
        }

    def followers_have(self, vni: int, revision: int) -> bool:
        """Whether every live host with a vNIC in a preprogrammed VPC has this revision of it.

        A VPC whose routes are learned has no followers, so nobody lacks anything.
        """
        if vni not in self._reports.followers:
            return True
        floor = self._follower_floors.get(vni)
        if floor is None:
            stands = self._followers(vni).values()
            floor = min(stands, default=_NOBODY) if self._all_heard else -1
            self._follower_floors[vni] = floor
        return floor >= revision

    def followers_behind(self, vni: int, revision: int) -> list[str]:
        """Names of those of whom `followers_have` knows that they do not."""
        stands = self._followers(vni)
        return sorted(self.host_name(host) for host, at in stands.items() if at < revision)

    def _followers(self, vni: int) -> dict[UUID, int]:
        """Where hosts stand that follow a VPC: -1 if they may live but were not heard lately."""
        stands: dict[UUID, int] = {}
        for host in self._reports.followers.get(vni, ()):
            report = self.host(host)
            if report is not None:
                stands[host] = report.routes.get(vni, -1)
            elif not self.settled:
                stands[host] = -1
        return stands

    def host(self, host_id: UUID) -> HostReport | None:
        """The host's report, unless it is too old to be believed."""
        report = self._reports.hosts.get(host_id)
        return report if report and self.now - report.at <= LIVE_S else None

    def host_name(self, host_id: UUID) -> str:
        """Its name, or its id while the name is not known."""
        host = self._fleet.hosts.get(host_id)
        return host.name if host else str(host_id)

    def behind(self, vni: int, revision: int) -> list[str]:
        """Names of the live gateways that do not have this revision of a VPC."""
        return sorted(name for name, has in self._revisions(vni).items() if has < revision)


def plan(pending: Iterable[Pending], observed: Observed, building_timeout_s: float) -> Plan:
    """What to do now. Notes in each instance since when its stages are done."""
    made = Plan()
    for instance in pending:
        gateways, host = _gateways_done(instance, observed), _host_done(instance, observed)
        now = observed.now
        instance.gateways_applied_at = (instance.gateways_applied_at or now) if gateways else None
        instance.host_applied_at = (instance.host_applied_at or now) if host else None
        if gateways and host:
            leaves = instance.state is InstanceState.DELETING
            (made.gone if leaves else made.active).append(instance)
        elif observed.settled and now - instance.accepted_at > building_timeout_s:
            reason = _reason(instance, observed)
            if reason != instance.reason:
                made.overdue.append((instance, reason))
    return made


def _gateways_done(instance: Pending, observed: Observed) -> bool:
    leaves = instance.state is InstanceState.DELETING
    return all(
        observed.route_floor(vnic.vni) >= vnic.revision
        or (leaves and not observed.served(vnic.vni))  # nobody is there that could hold a route
        for vnic in instance.vnics
    )


def _host_done(instance: Pending, observed: Observed) -> bool:
    """Whether its host runs it and, where routes are programmed ahead, all hosts have its own."""
    report = observed.host(instance.host_id)
    if report is None or report.revision < instance.host_revision:
        return False
    down = report.waiting | report.failed.keys()
    if instance.state is not InstanceState.DELETING and any(v.id in down for v in instance.vnics):
        return False
    return all(observed.followers_have(vnic.vni, vnic.revision) for vnic in instance.vnics)


def _reason(instance: Pending, observed: Observed) -> str:
    """The first thing that an instance waits for; at least one thing is missing.

    It stays the same while nothing happens: a reason that changes is written to the database.
    """
    if instance.host_applied_at is None:
        return _reason_on_host(instance, observed)
    for vnic in instance.vnics:
        if behind := observed.behind(vnic.vni, vnic.revision):
            verb = "gateway {} is behind" if len(behind) == 1 else "gateways {} are behind"
            return verb.format(", ".join(behind))
    return f"no gateway is live: none has reported for {LIVE_S:g} s"


def _reason_on_host(instance: Pending, observed: Observed) -> str:
    host = f"host {observed.host_name(instance.host_id)}"
    report = observed.host(instance.host_id)
    if report is None:
        return f"{host} is silent: it has not reported for {LIVE_S:g} s"
    if report.revision < instance.host_revision:
        return f"{host} does not run revision {instance.host_revision} yet"
    for vnic in instance.vnics:
        if why := report.failed.get(vnic.id):
            return f"vNIC {vnic.id} on {host}: {why}"
    for vnic in instance.vnics:
        if vnic.id in report.waiting:
            return f"device {port_ifname(vnic.id)} of vNIC {vnic.id} has not appeared on {host}"
    return _reason_on_followers(instance, observed)


def _reason_on_followers(instance: Pending, observed: Observed) -> str:
    behind = {
        name for vnic in instance.vnics
        for name in observed.followers_behind(vnic.vni, vnic.revision)
    }  # fmt: skip
    names = sorted(behind)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"hosts that lack routes of its preprogrammed VPC: {', '.join(names[:_NAMED])}{more}"
