"""The registered gateways and hosts, and how they are doing."""

from dataclasses import dataclass, field
from uuid import UUID

from achelous_controller.programming.reports import LIVE_S, GatewayReport, HostReport, Reports
from achelous_shared.names import GATEWAY_SHARDS


@dataclass(frozen=True, slots=True)
class Host:
    """A registered host and the revision of its document."""

    name: str
    revision: int


@dataclass(frozen=True, slots=True)
class Fleet:
    """Who is registered, as last read from the database, and the fleet document's revision."""

    gateways: dict[UUID, str] = field(default_factory=dict)
    """Their names."""
    hosts: dict[UUID, Host] = field(default_factory=dict)
    revision: int = 0
    shards: dict[UUID, frozenset[int]] = field(default_factory=dict)
    """Of gateways that do not serve all of them."""

    def serves(self, gateway_id: UUID, vni: int) -> bool:
        """Whether a gateway has the routes of this VPC."""
        shards = self.shards.get(gateway_id)
        return shards is None or vni % GATEWAY_SHARDS in shards


@dataclass(frozen=True, slots=True)
class GatewayStatus:
    """A registered gateway. Without a report yet, all but its name is empty."""

    gateway_id: UUID
    name: str
    report_age_s: float | None
    live: bool
    serving: bool
    vpcs: int
    """Number of VPCs of which it has a table."""


@dataclass(frozen=True, slots=True)
class HostStatus:
    """A registered host. Without a report yet, all but the first three is empty."""

    host_id: UUID
    name: str
    revision: int
    """Of its document, as the controller wants it."""
    report_age_s: float | None
    live: bool
    applied_revision: int | None
    """Of the document that it runs."""
    fleet_revision: int | None
    waiting: int
    """Number of its vNICs whose device has not appeared."""
    failed: dict[UUID, str]
    """Its vNICs that can not run, with the reason."""
    unheld: tuple[int, ...] = ()
    """VNIs of preprogrammed VPCs that have more routes than it holds, in order."""


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """Every registered gateway and host, in order of name."""

    revision: int
    gateways: tuple[GatewayStatus, ...]
    hosts: tuple[HostStatus, ...]


def fleet_status(fleet: Fleet, reports: Reports, now: float) -> FleetStatus:
    """How everybody is doing at ``now``, Unix seconds."""
    gateways = (
        _gateway(gateway, name, reports.gateways.get(gateway), now)
        for gateway, name in fleet.gateways.items()
    )
    hosts = (_host(key, host, reports.hosts.get(key), now) for key, host in fleet.hosts.items())
    return FleetStatus(
        revision=fleet.revision,
        gateways=tuple(sorted(gateways, key=lambda status: status.name)),
        hosts=tuple(sorted(hosts, key=lambda status: status.name)),
    )


def _gateway(
    gateway_id: UUID, name: str, report: GatewayReport | None, now: float
) -> GatewayStatus:
    if report is None:
        return GatewayStatus(gateway_id, name, None, live=False, serving=False, vpcs=0)
    live = now - report.at <= LIVE_S
    return GatewayStatus(
        gateway_id=gateway_id,
        name=name,
        report_age_s=now - report.at,
        live=live,
        serving=live and report.serving,
        vpcs=len(report.revisions),
    )


def _host(host_id: UUID, host: Host, report: HostReport | None, now: float) -> HostStatus:
    if report is None:
        return HostStatus(host_id, host.name, host.revision, None, False, None, None, 0, {})
    return HostStatus(
        host_id=host_id,
        name=host.name,
        revision=host.revision,
        report_age_s=now - report.at,
        live=now - report.at <= LIVE_S,
        applied_revision=report.revision,
        fleet_revision=report.fleet_revision,
        waiting=len(report.waiting),
        failed=report.failed,
        unheld=tuple(sorted(report.unheld)),
    )
