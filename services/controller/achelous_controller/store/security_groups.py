"""Security groups, their rules, and the vNICs in them.

All that changes what a vNIC may do holds the lock of its VPC: an instance that joins a group at the
same time either sees the new rule or is seen by it.
"""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.errors import Conflict, FieldError, Invalid, NotFound
from achelous_controller.domain.identities import groups_of
from achelous_controller.domain.ids import new_id
from achelous_controller.domain.precondition import ANYTHING, Precondition
from achelous_controller.domain.quotas import Resource
from achelous_controller.domain.rules import DEFAULT_GROUP, FIRST_RULES, Rule
from achelous_controller.store import identities, objects, quotas, rule_limits
from achelous_controller.store.database import Record, fetch_one
from achelous_controller.store.outbox import hosts_changed, lock_vpc
from achelous_controller.store.schema import (
    hosts,
    instances,
    security_group_rules,
    security_groups,
    vnic_security_groups,
    vnics,
)
from achelous_controller.store.users import must_be_unused


async def create(connection: AsyncConnection, vpc: Record, name: str) -> Record:
    """A group that allows everything out and nothing in."""
    await lock_vpc(connection, vpc.id)
    group = await insert_group(connection, vpc.project_id, vpc.id, name)
    await quotas.spend(
        connection,
        vpc.project_id,
        {Resource.SECURITY_GROUPS: 1, Resource.SECURITY_GROUP_RULES: len(FIRST_RULES)},
    )
    return group


async def insert_group(
    connection: AsyncConnection, project_id: UUID, vpc_id: UUID, name: str
) -> Record:
    """A group with its first rules; to count them is the caller's matter."""
    group = await fetch_one(
        connection,
        insert(security_groups)
        .values(id=new_id(), project_id=project_id, vpc_id=vpc_id, name=name)
        .returning(security_groups),
    )
    for rule in FIRST_RULES:
        await _insert_rule(connection, group.id, rule)
    return group


async def locked(
    connection: AsyncConnection, group_id: UUID, project_id: UUID | None, match: Precondition
) -> Record:
    """A group and its VPC, locked in that order's reverse; raises `NotFound`."""
    found = await objects.one(connection, security_groups, group_id, project_id)
    await lock_vpc(connection, found.vpc_id)
    return await objects.locked(connection, security_groups, group_id, project_id, match)


async def rename(
    connection: AsyncConnection,
    group_id: UUID,
    project_id: UUID | None,
    match: Precondition,
    name: str | None,
) -> Record:
    """Give a group another name; the default group keeps its own."""
    group = await locked(connection, group_id, project_id, match)
    if name is not None and DEFAULT_GROUP in (name, group.name) and name != group.name:
        raise Conflict.field("name", name, "the name of the VPC's default group is fixed")
    return await objects.change(connection, security_groups, group_id, {"name": name or group.name})


async def remove(
    connection: AsyncConnection, group_id: UUID, project_id: UUID | None, match: Precondition
) -> None:
    """Delete a group without vNICs that no other group's rule names; the default group goes with
    its VPC."""
    group = await locked(connection, group_id, project_id, match)
    if group.name == DEFAULT_GROUP:
        raise Conflict("the default group of a VPC goes with the VPC")
    members = select(vnic_security_groups.c.vnic_id).where(
        vnic_security_groups.c.security_group_id == group_id
    )
    await must_be_unused(
        connection,
        "the security group",
        "vnic",
        vnics,
        func.host(vnics.c.ip),
        vnics.c.id.in_(members),
    )
    table = security_group_rules
    await must_be_unused(
        connection,
        "the security group",
        "rule",
        table,
        func.concat("of group ", table.c.security_group_id),
        table.c.remote_group_id == group_id,
        table.c.security_group_id != group_id,
    )
    own = len((await rules(connection, [group_id]))[group_id])
    await objects.remove(connection, security_groups, group_id)
    await quotas.give_back(
        connection,
        group.project_id,
        {Resource.SECURITY_GROUPS: 1, Resource.SECURITY_GROUP_RULES: own},
    )


async def remove_all(connection: AsyncConnection, vpc_id: UUID) -> int:
    """Delete the groups of a VPC that has no vNICs; how many rules they had."""
    inside = select(security_groups.c.id).where(security_groups.c.vpc_id == vpc_id)
    table = security_group_rules
    had = delete(table).where(table.c.security_group_id.in_(inside))
    removed = (await connection.execute(had)).rowcount
    await connection.execute(delete(security_groups).where(security_groups.c.vpc_id == vpc_id))
    return removed


async def rules(connection: AsyncConnection, group_ids: Sequence[UUID]) -> dict[UUID, list[Record]]:
    """The rules of each group in order of their making."""
    table = security_group_rules
    query = select(table).where(table.c.security_group_id.in_(group_ids)).order_by(table.c.id)
    found: dict[UUID, list[Record]] = {group_id: [] for group_id in group_ids}
    for row in await connection.execute(query):
        found[row.security_group_id].append(row)
    return found


async def rule(connection: AsyncConnection, group_id: UUID, rule_id: UUID) -> Record:
    """One rule of a group; raises `NotFound`."""
    table = security_group_rules
    query = select(table).where(table.c.id == rule_id, table.c.security_group_id == group_id)
    row: Record | None = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound("rule", rule_id)
    return row


async def add_rule(
    connection: AsyncConnection, group_id: UUID, project_id: UUID | None, rule: Rule
) -> Record:
    """Add a rule and tell the hosts of the group's members.

    A group that it names is in the same VPC; its members' packets say so from now on.
    """
    group = await locked(connection, group_id, project_id, ANYTHING)
    same = (rule.egress, rule.protocol, rule.port_min, rule.port_max, rule.remote)
    for row in (await rules(connection, [group_id]))[group_id]:
        if (row.egress, row.protocol, row.port_min, row.port_max, row.remote) == same and (
            row.remote_group_id,
            row.allow,
            row.priority,
        ) == (rule.remote_group, rule.allow, rule.priority):
            raise Conflict(f"the security group has this rule already: {row.id}")
    await rule_limits.one_more_must_fit(connection, group.vpc_id, group_id, egress=rule.egress)
    await _must_be_in_vpc(connection, group.vpc_id, rule.remote_group)
    added = await _insert_rule(connection, group_id, rule)
    told: set[UUID] = set()
    if rule.remote_group is not None:
        told = await identities.assign_members(connection, group.vpc_id, rule.remote_group)
    await _changed(connection, group_id, told)
    await quotas.spend(connection, group.project_id, {Resource.SECURITY_GROUP_RULES: 1})
    return added


async def _must_be_in_vpc(connection: AsyncConnection, vpc_id: UUID, group_id: UUID | None) -> None:
    query = select(security_groups.c.vpc_id).where(security_groups.c.id == group_id)
    if group_id is not None and (await connection.execute(query)).scalar() != vpc_id:
        raise Invalid.field("remote_group_id", str(group_id), "the VPC has no such security group")


async def remove_rule(
    connection: AsyncConnection, group_id: UUID, project_id: UUID | None, rule_id: UUID
) -> None:
    """Delete a rule and tell the hosts of the group's members."""
    group = await locked(connection, group_id, project_id, ANYTHING)
    await rule(connection, group_id, rule_id)
    table = security_group_rules
    await connection.execute(delete(table).where(table.c.id == rule_id))
    await _changed(connection, group_id)
    await quotas.give_back(connection, group.project_id, {Resource.SECURITY_GROUP_RULES: 1})


async def change_vnic_groups(
    connection: AsyncConnection,
    vnic_id: UUID,
    project_id: UUID | None,
    match: Precondition,
    group_ids: Sequence[UUID],
) -> None:
    """Put a vNIC into these groups of its VPC and no others, and tell its host."""
    found = await objects.one(connection, vnics, vnic_id, project_id)
    await lock_vpc(connection, found.vpc_id)
    vnic = await objects.locked(connection, vnics, vnic_id, project_id, match)
    if vnic.withdrawn:
        raise Conflict(f"instance {vnic.instance_id} of the vNIC is being deleted")
    query = select(security_groups.c.id).where(
        security_groups.c.vpc_id == vnic.vpc_id, security_groups.c.id.in_(group_ids)
    )
    known = set((await connection.execute(query)).scalars())
    errors = [
        FieldError(
            f"security_group_ids[{index}]", str(group), "the vNIC's VPC has no such security group"
        )
        for index, group in enumerate(group_ids)
        if group not in known
    ]
    if errors:
        raise Invalid(f"{errors[0].field}: {errors[0].message}", errors)
    wanted = groups_of(known)
    await rule_limits.must_fit(connection, {wanted: "security_group_ids"})
    links = vnic_security_groups
    await connection.execute(delete(links).where(links.c.vnic_id == vnic_id))
    await connection.execute(
        insert(links), [{"vnic_id": vnic_id, "security_group_id": group} for group in known]
    )
    assigned = await identities.assign(connection, vnic.vpc_id, [wanted])
    if assigned.numbers[wanted] != vnic.identity:
        query = (
            select(vnics.c.id, vnics.c.ip, vnics.c.ip6, vnics.c.mac, hosts.c.vtep)
            .join(hosts, hosts.c.id == vnics.c.host_id)
            .where(vnics.c.id == vnic_id)
        )
        rows = (await connection.execute(query)).all()
        await identities.renumber(connection, vnic.vpc_id, rows, [assigned.numbers[wanted]])
    await objects.change(connection, vnics, vnic_id, {})
    await connection.execute(
        update(instances)
        .where(instances.c.id == vnic.instance_id)
        .values(version=instances.c.version + 1)
    )
    await hosts_changed(connection, {vnic.host_id, *assigned.hosts})


async def _insert_rule(connection: AsyncConnection, group_id: UUID, rule: Rule) -> Record:
    return await fetch_one(
        connection,
        insert(security_group_rules)
        .values(
            id=new_id(),
            security_group_id=group_id,
            egress=rule.egress,
            protocol=rule.protocol,
            port_min=rule.port_min,
            port_max=rule.port_max,
            remote=rule.remote,
            remote_group_id=rule.remote_group,
            allow=rule.allow,
            priority=rule.priority,
        )
        .returning(security_group_rules),
    )


async def _changed(
    connection: AsyncConnection, group_id: UUID, also: Collection[UUID] = ()
) -> None:
    """Tell the hosts of the members, and others."""
    await objects.change(connection, security_groups, group_id, {})
    members = (
        select(vnics.c.host_id)
        .distinct()
        .join(vnic_security_groups, vnic_security_groups.c.vnic_id == vnics.c.id)
        .where(vnic_security_groups.c.security_group_id == group_id, ~vnics.c.withdrawn)
    )
    await hosts_changed(connection, {*(await connection.execute(members)).scalars(), *also})
