"""VPCs and their subnets."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPV4LENGTH, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Column, ColumnElement, and_, cast, func, insert, select
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.errors import Conflict
from achelous_controller.domain.ids import new_id
from achelous_controller.domain.networks import Address, Network, assignable
from achelous_controller.domain.precondition import Precondition
from achelous_controller.domain.programming_model import ProgrammingModel
from achelous_controller.domain.quotas import Resource
from achelous_controller.domain.rules import DEFAULT_GROUP, FIRST_RULES
from achelous_controller.store import objects, quotas, security_groups
from achelous_controller.store.database import Record, fetch_one
from achelous_controller.store.outbox import hosts_changed, lock_vpc
from achelous_controller.store.schema import VNI, subnets, vnics, vpcs
from achelous_controller.store.schema import security_groups as groups
from achelous_controller.store.users import must_be_unused

_TOLD: Final = frozenset({"dns_servers", "dhcp_lease_s"})
"""Columns of a subnet that are in the documents of hosts."""


@dataclass(frozen=True, slots=True)
class NewSubnet:
    """A subnet that is asked for. ``cidr6`` and ``gateway_ip6``: both or none."""

    name: str
    cidr: IPv4Network
    gateway_ip: IPv4Address
    cidr6: IPv6Network | None
    gateway_ip6: IPv6Address | None
    dns_servers: tuple[Address, ...]
    dhcp_lease_s: int


async def create(
    connection: AsyncConnection, project_id: UUID, name: str, model: ProgrammingModel
) -> Record:
    """A VPC with a VNI that was never used before, and its default security group."""
    vpc_id = new_id()
    spent = {Resource.VPCS: 1, Resource.SECURITY_GROUP_RULES: len(FIRST_RULES)}
    await quotas.spend(connection, project_id, spent)
    row = await fetch_one(
        connection,
        insert(vpcs)
        .values(
            id=vpc_id,
            project_id=project_id,
            name=name,
            vni=VNI.next_value(),
            programming_model=model,
        )
        .returning(vpcs),
    )
    await security_groups.insert_group(connection, project_id, vpc_id, DEFAULT_GROUP)
    return row


def in_subnet(subnet_id: UUID) -> ColumnElement[bool]:
    """Whether a vNIC is in a subnet: a range of the index of its VPC's addresses."""
    range_of = subnets.join(vpcs, vpcs.c.id == subnets.c.vpc_id)

    def of(column: ColumnElement[Any]) -> ColumnElement[Any]:
        query = select(column).select_from(range_of).where(subnets.c.id == subnet_id)
        return query.scalar_subquery()

    last = func.set_masklen(func.broadcast(subnets.c.cidr), IPV4LENGTH)
    return and_(
        vnics.c.subnet_id == subnet_id,
        vnics.c.vni == of(vpcs.c.vni),
        vnics.c.ip.between(of(cast(subnets.c.cidr, INET)), of(last)),
    )


def must_keep_model(vpc: Record, wanted: ProgrammingModel | None) -> None:
    """Raises `Conflict` if another model is ``wanted`` than the VPC was made with."""
    if wanted not in (None, vpc.programming_model):
        raise Conflict.field(
            "programming_model",
            wanted,
            f"the programming model of a VPC can not change, this one's is"
            f" {vpc.programming_model}: make another VPC",
        )


async def remove(
    connection: AsyncConnection, vpc_id: UUID, project_id: UUID | None, match: Precondition
) -> None:
    """Delete a VPC without subnets and without security groups but its own."""
    vpc = await objects.locked(connection, vpcs, vpc_id, project_id, match)
    await must_be_unused(
        connection, "the VPC", "subnet", subnets, subnets.c.name, subnets.c.vpc_id == vpc_id
    )
    others = (groups.c.vpc_id == vpc_id, groups.c.name != DEFAULT_GROUP)
    await must_be_unused(connection, "the VPC", "security group", groups, groups.c.name, *others)
    rules = await security_groups.remove_all(connection, vpc_id)
    await objects.remove(connection, vpcs, vpc_id)
    returned = {Resource.VPCS: 1, Resource.SECURITY_GROUP_RULES: rules}
    await quotas.give_back(connection, vpc.project_id, returned)


async def create_subnet(connection: AsyncConnection, vpc: Record, wanted: NewSubnet) -> Record:
    """A subnet of a VPC; raises `Conflict` when it overlaps another one of the VPC."""
    await lock_vpc(connection, vpc.id)
    await _must_not_overlap(connection, vpc, subnets.c.cidr, wanted.cidr)
    if wanted.cidr6 is not None:
        await _must_not_overlap(connection, vpc, subnets.c.cidr6, wanted.cidr6)
    row = await fetch_one(
        connection,
        insert(subnets)
        .values(
            id=new_id(),
            project_id=vpc.project_id,
            vpc_id=vpc.id,
            name=wanted.name,
            cidr=wanted.cidr,
            gateway_ip=wanted.gateway_ip,
            next_ip=IPv4Address(assignable(wanted.cidr)[0]),
            cidr6=wanted.cidr6,
            gateway_ip6=wanted.gateway_ip6,
            next_ip6=IPv6Address(assignable(wanted.cidr6)[0]) if wanted.cidr6 else None,
            dns_servers=list(wanted.dns_servers),
            dhcp_lease_s=wanted.dhcp_lease_s,
        )
        .returning(subnets),
    )
    await quotas.spend(connection, vpc.project_id, {Resource.SUBNETS: 1})
    return row


async def _must_not_overlap(
    connection: AsyncConnection, vpc: Record, column: Column[Any], network: Network
) -> None:
    query = select(subnets.c.id, subnets.c.name, column.label("network")).where(
        subnets.c.vpc_id == vpc.id, column.op("&&", is_comparison=True)(network)
    )
    other = (await connection.execute(query.limit(1))).one_or_none()
    if other is not None:
        raise Conflict.field(
            column.name,
            str(network),
            f"{network} overlaps subnet {other.name} ({other.id}), {other.network}",
        )


async def change_subnet(
    connection: AsyncConnection,
    subnet_id: UUID,
    project_id: UUID | None,
    match: Precondition,
    values: Mapping[str, object],
) -> Record:
    """Write values into a subnet; hosts are told of those that their guests are told."""
    found = await objects.one(connection, subnets, subnet_id, project_id)
    await lock_vpc(connection, found.vpc_id)
    await objects.locked(connection, subnets, subnet_id, project_id, match)
    row = await objects.change(connection, subnets, subnet_id, values)
    if _TOLD & values.keys():
        inside = select(vnics.c.host_id).distinct()
        inside = inside.where(in_subnet(subnet_id), ~vnics.c.withdrawn)
        await hosts_changed(connection, (await connection.execute(inside)).scalars())
    return row


async def remove_subnet(
    connection: AsyncConnection, subnet_id: UUID, project_id: UUID | None, match: Precondition
) -> None:
    """Delete a subnet without vNICs."""
    found = await objects.one(connection, subnets, subnet_id, project_id)
    await lock_vpc(connection, found.vpc_id)
    subnet = await objects.locked(connection, subnets, subnet_id, project_id, match)
    await must_be_unused(
        connection,
        "the subnet",
        "vnic",
        vnics,
        func.host(vnics.c.ip),
        in_subnet(subnet_id),
    )
    await objects.remove(connection, subnets, subnet_id)
    await quotas.give_back(connection, subnet.project_id, {Resource.SUBNETS: 1})
