"""VPCs and their subnets."""

from ipaddress import IPv4Address, IPv4Network
from uuid import UUID

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.errors import Conflict
from achelous_controller.domain.ids import new_id
from achelous_controller.domain.networks import assignable
from achelous_controller.domain.precondition import Precondition
from achelous_controller.domain.quotas import Resource
from achelous_controller.domain.rules import DEFAULT_GROUP
from achelous_controller.store import objects, quotas, security_groups
from achelous_controller.store.database import Record, fetch_one
from achelous_controller.store.outbox import lock_vpc
from achelous_controller.store.schema import VNI, subnets, vnics, vpcs
from achelous_controller.store.schema import security_groups as groups
from achelous_controller.store.users import must_be_unused


async def create(connection: AsyncConnection, project_id: UUID, name: str) -> Record:
    """A VPC with a VNI that was never used before, and its default security group."""
    vpc_id = new_id()
    await quotas.spend(connection, project_id, {Resource.VPCS: 1})
    row = await fetch_one(
        connection,
        insert(vpcs)
        .values(id=vpc_id, project_id=project_id, name=name, vni=VNI.next_value())
        .returning(vpcs),
    )
    await security_groups.insert_group(connection, project_id, vpc_id, DEFAULT_GROUP)
    return row


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
    await security_groups.remove_all(connection, vpc_id)
    await objects.remove(connection, vpcs, vpc_id)
    await quotas.give_back(connection, vpc.project_id, {Resource.VPCS: 1})


async def create_subnet(
    connection: AsyncConnection,
    vpc: Record,
    name: str,
    cidr: IPv4Network,
    gateway_ip: IPv4Address,
) -> Record:
    """A subnet of a VPC; raises `Conflict` when it overlaps another one of the VPC."""
    await lock_vpc(connection, vpc.id)
    query = select(subnets.c.id, subnets.c.name, subnets.c.cidr).where(
        subnets.c.vpc_id == vpc.id, subnets.c.cidr.op("&&", is_comparison=True)(cidr)
    )
    other = (await connection.execute(query.limit(1))).one_or_none()
    if other is not None:
        raise Conflict.field(
            "cidr", str(cidr), f"{cidr} overlaps subnet {other.name} ({other.id}), {other.cidr}"
        )
    row = await fetch_one(
        connection,
        insert(subnets)
        .values(
            id=new_id(),
            project_id=vpc.project_id,
            vpc_id=vpc.id,
            name=name,
            cidr=cidr,
            gateway_ip=gateway_ip,
            next_ip=IPv4Address(assignable(cidr)[0]),
        )
        .returning(subnets),
    )
    await quotas.spend(connection, vpc.project_id, {Resource.SUBNETS: 1})
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
        vnics.c.subnet_id == subnet_id,
    )
    await objects.remove(connection, subnets, subnet_id)
    await quotas.give_back(connection, subnet.project_id, {Resource.SUBNETS: 1})
