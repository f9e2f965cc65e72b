"""From rows to the documents of hosts and of the fleet: pure."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Protocol
from uuid import UUID

from achelous_shared import names
from achelous_shared.messages import (
    FleetDocument,
    GatewayAddress,
    HostDocument,
    Port,
    SecurityRule,
)


class HostRow(Protocol):
    """A host to be described."""

    id: UUID
    revision: int


class PortRow(Protocol):
    """A vNIC with its subnet. Addresses are 16 bytes, ``prefix_len`` of 128 bits."""

    host_id: UUID
    vnic_id: UUID
    instance_id: UUID
    vni: int
    mac: bytes
    ip: bytes
    prefix_len: int
    router: bytes
    security_groups: Sequence[UUID]
    revision: int


class RuleRow(Protocol):
    """A rule of a security group. ``remote`` is 16 bytes, ``remote_len`` of 128 bits."""

    security_group_id: UUID
    egress: bool
    protocol: int
    port_min: int
    port_max: int
    remote: bytes
    remote_len: int


class GatewayRow(Protocol):
    """A gateway of the fleet. ``vtep`` is 4 bytes."""

    id: UUID
    name: str
    vtep: bytes


def host_documents(
    hosts: Iterable[HostRow], ports: Sequence[PortRow], rules: Iterable[RuleRow]
) -> list[HostDocument]:
    """One document a host, from rows of one snapshot of the database.

    ``ports`` in order of host; ``rules`` in order of group, of all groups that the ports name. A
    document has the groups of its own ports, a group without rules too.
    """
    ports_of = {host: tuple(group) for host, group in groupby(ports, attrgetter("host_id"))}
    rules_of = {
        group: tuple(_rule(row) for row in rows)
        for group, rows in groupby(rules, attrgetter("security_group_id"))
    }
    return [_document(host, ports_of.get(host.id, ()), rules_of) for host in hosts]


def _document(
    host: HostRow, ports: Sequence[PortRow], rules_of: dict[UUID, tuple[SecurityRule, ...]]
) -> HostDocument:
    groups = sorted({group for port in ports for group in port.security_groups})
    return HostDocument(
        host_id=host.id,
        revision=host.revision,
        ports=tuple(_port(row) for row in ports),
        security_groups={group: rules_of.get(group, ()) for group in groups},
    )


def _port(row: PortRow) -> Port:
    return Port(
        vnic_id=row.vnic_id,
        instance_id=row.instance_id,
        vni=row.vni,
        mac=row.mac,
        ip=row.ip,
        prefix_len=row.prefix_len,
        router=row.router,
        mtu=names.GUEST_MTU,
        security_groups=tuple(row.security_groups),
        revision=row.revision,
    )


def _rule(row: RuleRow) -> SecurityRule:
    return SecurityRule(
        egress=row.egress,
        protocol=row.protocol,
        port_min=row.port_min,
        port_max=row.port_max,
        remote=row.remote,
        remote_len=row.remote_len,
    )


def fleet_document(
    revision: int, host_vteps: bytes, gateways: Iterable[GatewayRow]
) -> FleetDocument:
    """The fleet's document; ``host_vteps`` are IPv4 addresses packed as big-endian u32."""
    return FleetDocument(
        revision=revision,
        host_vteps=host_vteps,
        gateways=tuple(
            GatewayAddress(gateway_id=row.id, name=row.name, vtep=int.from_bytes(row.vtep, "big"))
            for row in gateways
        ),
    )
