"""For tests of programming without servers: a fleet that reports what it is told to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import numpy as np

from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.domain.pending import Member, RoutesAt, cohorts
from achelous_controller.programming.fleet import Fleet, Host
from achelous_controller.programming.pending import Pending
from achelous_controller.programming.reports import Reports
from achelous_shared.messages import GatewayApplied, HostApplied
from achelous_shared.routes import REVISION, pack

VNI = 7


@dataclass
class ReportsWorld:
    """Two gateways and a host at revision 5, and a fleet at revision 2. Nobody has reported yet."""

    now: float = 1_000_000.0
    g1: UUID = field(default_factory=uuid4)
    g2: UUID = field(default_factory=uuid4)
    host: UUID = field(default_factory=uuid4)

    def __post_init__(self) -> None:
        self.reports = Reports(self.now)
        self.fleet = Fleet({self.g1: "g1", self.g2: "g2"}, {self.host: Host("h1", 5)}, revision=2)

    def wait(self, seconds: int) -> None:
        """In which a stranger reports each second, so that it is no silence of all."""
        for _ in range(seconds):
            self.now += 1
            self.reports.host(host_applied(uuid4(), 0), self.now)

    def gateway_has(
        self, gateway: UUID, revisions: Mapping[int, int], *, full: bool = True
    ) -> bool:
        """It reports; whether that was news."""
        return self.reports.gateway(gateway_applied(gateway, revisions, full=full), self.now)

    def gateways_have(self, revision: int) -> None:
        """Both report this revision of the VPC `VNI`."""
        for gateway in (self.g1, self.g2):
            self.gateway_has(gateway, {VNI: revision})

    def host_runs(
        self,
        revision: int,
        *,
        waiting: tuple[UUID, ...] = (),
        failed: Mapping[UUID, str] | None = None,
        fleet: int = 2,
        routes: Mapping[int, int] | None = None,
        host: UUID | None = None,
    ) -> bool:
        """It, or another ``host``, reports; whether that was news.

        ``routes``: revisions of the preprogrammed VPCs that it follows, by VNI.
        """
        message = host_applied(host or self.host, revision, waiting, failed or {}, fleet, routes)
        return self.reports.host(message, self.now)

    def pending(
        self,
        state: InstanceState = InstanceState.BUILDING,
        routes: Mapping[int, int] | None = None,
        *,
        published: bool = True,
        size: int = 1,
    ) -> Pending:
        """Accepted now, on the host at its revision 5; a vNIC in each VPC (VNI -> revision)."""
        at = [RoutesAt(*each) for each in ({VNI: 3} if routes is None else routes).items()]
        members = [
            Member(uuid4(), self.host, self.now, [uuid4() for _ in at], at) for _ in range(size)
        ]
        (cohort,) = cohorts(members, state, {self.host: 5}, self.now)
        return Pending(cohort, published_at=self.now if published else None)


def gateway_applied(
    gateway: UUID, revisions: Mapping[int, int], *, full: bool = True
) -> GatewayApplied:
    """The report of a gateway that serves."""
    table = np.array(list(revisions.items()), REVISION)
    return GatewayApplied(
        gateway_id=gateway, full=full, serving=True, revisions=pack(table), at=0.0
    )


def host_applied(
    host: UUID,
    revision: int,
    waiting: tuple[UUID, ...] = (),
    failed: Mapping[UUID, str] | None = None,
    fleet: int = 2,
    routes: Mapping[int, int] | None = None,
) -> HostApplied:
    """The report of a host."""
    return HostApplied(
        host_id=host,
        revision=revision,
        fleet_revision=fleet,
        waiting=waiting,
        failed=dict(failed or {}),
        preprogrammed=pack(np.array(list((routes or {}).items()), REVISION)),
        at=0.0,
    )
