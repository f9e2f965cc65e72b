"""What becomes of pending cohorts, given what gateways and hosts report: pure.

| condition | BUILDING | ERROR | DELETING |
|---|---|---|---|
| host and gateways have it | ACTIVE | ACTIVE | its rows go |
| something is missing for too long | ERROR | its reason is kept true | its reason says so |
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import numpy as np

from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.domain.pending import Cohort
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
    """What to do with pending cohorts; who is in none of the lists goes on waiting."""

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


def apart(pending: Pending, observed: Observed, building_timeout_s: float) -> Sequence[Pending]:
    """The parts of a cohort that differ: by vNICs that its host does not run, though it knows them.

    The one part is held up by them. Once it is late, each instance is a part, whose reason names
    its own vNIC.
    """
    down = _down(pending, observed)
    if not down or len(pending) == 1:
        return [pending]
    held = pending.has_any(down)
    if not held.any():
        return [pending]
    rest = [] if held.all() else [pending.part(~held)]
    if _late(pending, observed, building_timeout_s):
        return rest + [pending.part(np.array([place])) for place in np.flatnonzero(held)]
    return [*rest, pending.part(held)] if rest else [pending]


def plan(pending: Iterable[Pending], observed: Observed, building_timeout_s: float) -> Plan:
    """What to do now with cohorts that were taken `apart`. Notes since when stages are done."""
    made = Plan()
    now = observed.now
    for some in pending:
        gateways, host = _gateways_done(some.cohort, observed), _host_done(some, observed)
        some.gateways_applied_at = (some.gateways_applied_at or now) if gateways else None
        some.host_applied_at = (some.host_applied_at or now) if host else None
        if gateways and host:
            leaves = some.cohort.state is InstanceState.DELETING
            (made.gone if leaves else made.active).append(some)
        elif _late(some, observed, building_timeout_s):
            reason = _reason(some, observed)
            if reason != some.reason:
                made.overdue.append((some, reason))
    return made


def _late(pending: Pending, observed: Observed, building_timeout_s: float) -> bool:
    return observed.settled and observed.now - pending.asked_at > building_timeout_s


def _gateways_done(cohort: Cohort, observed: Observed) -> bool:
    leaves = cohort.state is InstanceState.DELETING
    return all(
        observed.route_floor(vni) >= revision
        or (leaves and not observed.served(vni))  # nobody is there that could hold a route
        for vni, revision in cohort.routes
    )


def _host_done(pending: Pending, observed: Observed) -> bool:
    """Whether its host runs it and, where routes are programmed ahead, all hosts have its own."""
    cohort = pending.cohort
    report = observed.host(cohort.host_id)
    if report is None or report.revision < cohort.host_revision:
        return False
    if report.down and pending.has_any(_down(pending, observed)).any():
        return False
    return all(observed.followers_have(vni, revision) for vni, revision in cohort.routes)


def _down(pending: Pending, observed: Observed) -> frozenset[UUID]:
    """vNICs that the cohort's host knows of and does not run, if that matters to the cohort."""
    cohort = pending.cohort
    report = observed.host(cohort.host_id)
    if report is None or not report.down or report.revision < cohort.host_revision:
        return frozenset()
    return frozenset() if cohort.state is InstanceState.DELETING else report.down


def _reason(pending: Pending, observed: Observed) -> str:
    """The first thing that a cohort waits for; at least one thing is missing.

    It stays the same while nothing happens: a reason that changes is written to the database.
    """
    if pending.host_applied_at is None:
        return _reason_on_host(pending, observed)
    for vni, revision in pending.cohort.routes:
        if behind := observed.behind(vni, revision):
            verb = "gateway {} is behind" if len(behind) == 1 else "gateways {} are behind"
            return verb.format(", ".join(behind))
    return f"no gateway is live: none has reported for {LIVE_S:g} s"


def _reason_on_host(pending: Pending, observed: Observed) -> str:
    cohort = pending.cohort
    host = f"host {observed.host_name(cohort.host_id)}"
    report = observed.host(cohort.host_id)
    if report is None:
        return f"{host} is silent: it has not reported for {LIVE_S:g} s"
    if report.revision < cohort.host_revision:
        return f"{host} does not run revision {cohort.host_revision} yet"
    if _down(pending, observed):
        vnics = pending.vnics()
        for vnic in vnics:
            if why := report.failed.get(vnic):
                return f"vNIC {vnic} on {host}: {why}"
        for vnic in vnics:
            if vnic in report.waiting:
                return f"device {port_ifname(vnic)} of vNIC {vnic} has not appeared on {host}"
    return _reason_on_followers(cohort, observed)


def _reason_on_followers(cohort: Cohort, observed: Observed) -> str:
    behind = {
        name for vni, revision in cohort.routes for name in observed.followers_behind(vni, revision)
    }
    names = sorted(behind)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"hosts that lack routes of its preprogrammed VPC: {', '.join(names[:_NAMED])}{more}"
