"""What becomes of pending instances, given what gateways and hosts report: pure.

| condition | BUILDING | ERROR | DELETING |
|---|---|---|---|
| host and gateways have it | ACTIVE | ACTIVE | its rows go |
| something is missing for too long | ERROR | its reason is kept true | its reason says so |
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.programming.fleet import Fleet
from achelous_controller.programming.pending import Pending
from achelous_controller.programming.reports import LIVE_S, GatewayReport, HostReport, Reports
from achelous_shared.names import port_ifname


@dataclass(frozen=True, slots=True)
class Missing:
    """What an instance waits for. ``key`` says it without what changes all the time."""

    key: tuple[object, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with pending instances; who is in none of the lists goes on waiting."""

    active: list[Pending] = field(default_factory=list)
    gone: list[Pending] = field(default_factory=list)
    overdue: list[tuple[Pending, Missing]] = field(default_factory=list)
    """Late, and its reason does not say so yet."""


class Observed:
    """The fleet as it reports at one moment, ``now`` (Unix seconds)."""

    def __init__(self, fleet: Fleet, reports: Reports, now: float) -> None:
        self.now = now
        self._fleet = fleet
        self._reports = reports
        self._live = [
            (name, report)
            for gateway, name in fleet.gateways.items()
            if (report := self._believed(gateway)) is not None
        ]
        self._floors: dict[int, int] = {}

    def _believed(self, gateway_id: UUID) -> GatewayReport | None:
        """What a live gateway has; nothing of one that may live, but was not heard yet."""
        report = self._reports.gateways.get(gateway_id)
        if report is not None and self.now - report.at <= LIVE_S:
            return report
        if self.now - self._reports.listening_since <= LIVE_S:
            return GatewayReport(at=self.now, serving=False, full=False)
        return None

    def route_floor(self, vni: int) -> int:
        """The revision of a VPC that every live gateway has; -1 if one has none, or none lives."""
        floor = self._floors.get(vni)
        if floor is None:
            revisions = (report.revisions.get(vni, -1) for _, report in self._live)
            floor = self._floors[vni] = min(revisions, default=-1)
        return floor

    def withdrawal_floor(self, vni: int) -> int | None:
        """As `route_floor`; None when no gateway is registered that could hold a route."""
        return self.route_floor(vni) if self._fleet.gateways else None

    def host(self, host_id: UUID) -> HostReport | None:
        """The host's report, unless it is too old to be believed."""
        report = self._reports.hosts.get(host_id)
        return report if report and self.now - report.at <= LIVE_S else None

    def silence(self, host_id: UUID) -> str:
        """How long a host that is not live has been silent, for people."""
        report = self._reports.hosts.get(host_id)
        name = self.host_name(host_id)
        if report is None:
            return f"host {name} has not reported since this controller started"
        return f"host {name} has not reported for {self.now - report.at:.0f} s"

    def host_name(self, host_id: UUID) -> str:
        """Its name, or its id while the name is not known."""
        host = self._fleet.hosts.get(host_id)
        return host.name if host else str(host_id)

    def behind(self, vni: int, revision: int) -> list[str]:
        """Names of the live gateways that do not have this revision of a VPC."""
        return sorted(
            name for name, report in self._live if report.revisions.get(vni, -1) < revision
        )


def plan(pending: Iterable[Pending], observed: Observed, building_timeout_s: float) -> Plan:
    """What to do now. Notes in each instance since when its stages are done."""
    made = Plan()
    for instance in pending:
        gateways_done, host_done = (
            _gateways_done(instance, observed),
            _host_done(instance, observed),
        )
        now = observed.now
        instance.gateways_applied_at = (
            (instance.gateways_applied_at or now) if gateways_done else None
        )
        instance.host_applied_at = (instance.host_applied_at or now) if host_done else None
        if gateways_done and host_done:
            leaves = instance.state is InstanceState.DELETING
            (made.gone if leaves else made.active).append(instance)
        elif now - instance.accepted_at > building_timeout_s:
            missing = _missing(instance, observed)
            if missing.key != instance.told:
                made.overdue.append((instance, missing))
    return made


def _gateways_done(instance: Pending, observed: Observed) -> bool:
    if instance.state is InstanceState.DELETING:
        floors = ((vnic, observed.withdrawal_floor(vnic.vni)) for vnic in instance.vnics)
        return all(floor is None or floor >= vnic.revision for vnic, floor in floors)
    return all(observed.route_floor(vnic.vni) >= vnic.revision for vnic in instance.vnics)


def _host_done(instance: Pending, observed: Observed) -> bool:
    report = observed.host(instance.host_id)
    if report is None or report.revision < instance.host_revision:
        return False
    if instance.state is InstanceState.DELETING:
        return True
    return not any(vnic.id in report.waiting or vnic.id in report.failed for vnic in instance.vnics)


def _missing(instance: Pending, observed: Observed) -> Missing:
    """The first thing that an instance waits for; at least one thing is missing."""
    if instance.host_applied_at is None:
        return _missing_on_host(instance, observed)
    for vnic in instance.vnics:
        if behind := observed.behind(vnic.vni, vnic.revision):
            named = ", ".join(behind)
            verb = "gateway {} is behind" if len(behind) == 1 else "gateways {} are behind"
            return Missing(("behind", *behind), verb.format(named))
    return Missing(("no gateway",), "no gateway is live: none has reported for 3 s")


def _missing_on_host(instance: Pending, observed: Observed) -> Missing:
    host = instance.host_id
    report = observed.host(host)
    if report is None:
        return Missing(("silent", host), observed.silence(host))
    name = observed.host_name(host)
    if report.revision < instance.host_revision:
        text = f"host {name} runs revision {report.revision}, not yet {instance.host_revision}"
        return Missing(("stale", host), text)
    for vnic in instance.vnics:
        if why := report.failed.get(vnic.id):
            return Missing(("failed", vnic.id, why), f"vNIC {vnic.id} on host {name}: {why}")
    vnic = next(vnic for vnic in instance.vnics if vnic.id in report.waiting)
    device = port_ifname(vnic.id)
    text = f"device {device} of vNIC {vnic.id} has not appeared on host {name}"
    return Missing(("waiting", vnic.id), text)
