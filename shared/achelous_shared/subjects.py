"""NATS subjects and streams: the one place that spells them."""

from typing import Final
from uuid import UUID

PREFIX: Final = "achelous.v1"

ROUTES_STREAM: Final = "ACHELOUS_ROUTES"
"""Route deltas in order; bounded by age and size, because a gateway that fell behind asks again."""

HOSTS_STREAM: Final = "ACHELOUS_HOSTS"
"""The last document of each host and what changed since, and the fleet's document."""

ALL_ROUTES: Final = f"{PREFIX}.routes.*"
ALL_HOSTS: Final = f"{PREFIX}.host.*"
ALL_HOST_CHANGES: Final = f"{PREFIX}.host-changes.*"
ALL_OF_HOSTS: Final = f"{PREFIX}.*.*"
"""In `HOSTS_STREAM`: documents of hosts and their changes, in one order."""
FLEET: Final = f"{PREFIX}.fleet"
SNAPSHOT_ROUTES: Final = f"{PREFIX}.snapshot.routes"
SNAPSHOT_REVISIONS: Final = f"{PREFIX}.snapshot.revisions"
ALL_APPLIED: Final = f"{PREFIX}.applied.>"
ALL_GATEWAYS_APPLIED: Final = f"{PREFIX}.applied.gateway.*"
ALL_HOSTS_APPLIED: Final = f"{PREFIX}.applied.host.*"
REPORT: Final = f"{PREFIX}.command.all.report"
"""Broadcast by a new leader: every gateway and host reports in full what it runs."""


ALL_PUSHES: Final = f"{PREFIX}.push.*"


def routes(vni: int) -> str:
    """Subject of the route deltas of one VPC."""
    return f"{PREFIX}.routes.{vni}"


def host(host_id: UUID) -> str:
    """Subject of one host's desired state, the whole of it."""
    return f"{PREFIX}.host.{host_id}"


def host_changes(host_id: UUID) -> str:
    """Subject of what changed in one host's desired state since the whole of it was published."""
    return f"{PREFIX}.host-changes.{host_id}"


def all_of_host(host_id: UUID) -> str:
    """In `HOSTS_STREAM`: `host` and `host_changes` of one host, in one order."""
    return f"{PREFIX}.*.{host_id}"


def rsp(gateway_id: UUID) -> str:
    """Subject on which one gateway answers RSP requests."""
    return f"{PREFIX}.rsp.{gateway_id}"


def push(vtep: int) -> str:
    """Subject on which gateways send routes unasked to the host of this VTEP."""
    return f"{PREFIX}.push.{vtep:08x}"


def gateway_applied(gateway_id: UUID) -> str:
    """Subject on which one gateway reports the revisions that it serves."""
    return f"{PREFIX}.applied.gateway.{gateway_id}"


def host_applied(host_id: UUID) -> str:
    """Subject on which one host reports the revision that it runs."""
    return f"{PREFIX}.applied.host.{host_id}"


def show(service: str, service_id: UUID) -> str:
    """Subject on which one vSwitch or gateway shows its tables to an operator."""
    return f"{PREFIX}.command.{service}.{service_id}.show"


def drops(host_id: UUID) -> str:
    """Subject on which one vSwitch shows packets that it dropped."""
    return f"{PREFIX}.command.vswitch.{host_id}.drops"


def flows(host_id: UUID) -> str:
    """Subject on which one vSwitch measures its sessions' rates."""
    return f"{PREFIX}.command.vswitch.{host_id}.flows"


def trace(service: str, service_id: UUID) -> str:
    """Subject on which one vSwitch or gateway says what would become of a packet."""
    return f"{PREFIX}.command.{service}.{service_id}.trace"


def inbox(role: str) -> str:
    """Prefix of the inboxes of one role, so that no role reads another's replies."""
    return f"_INBOX_{role}"
