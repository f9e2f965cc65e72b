"""Identities given to sets of security groups, and what has to be told when a vNIC gets another.

All of it is done under the lock of the VPC. A number that no vNIC has any more is retired: hosts
are told, and it is given again when the leader has taken it out of `retired_identities`
(`programming.retired`).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import numpy as np
from sqlalchemy import Select, any_, bindparam, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import BigInteger, Integer, Uuid

from achelous_controller.domain.errors import Conflict
from achelous_controller.domain.identities import (
    HIGHEST,
    MAX_IDENTITIES,
    NONE,
    Groups,
    groups_of,
    next_free,
)
from achelous_controller.domain.route_entries import entries, keys4, keys6
from achelous_controller.store.database import Record
from achelous_controller.store.outbox import lock_vpc, routes_changed
from achelous_controller.store.schema import (
    hosts,
    identities,
    security_group_rules,
    vnic_security_groups,
    vnics,
    vpcs,
)
from achelous_shared.routes import RouteOp

# a number's vNICs may be withdrawn and still run: their hosts have to report, like all others
_RETIRE_UNUSED: Final = text("""
    WITH unused AS (
        DELETE FROM identities AS i WHERE vpc_id = :vpc AND NOT EXISTS (
            SELECT FROM vnics AS v
            WHERE v.vpc_id = i.vpc_id AND v.identity = i.number AND NOT v.withdrawn
        )
        RETURNING vpc_id, number, groups
    ), retired AS (
        INSERT INTO retired_identities (vpc_id, number, retired_at)
        SELECT vpc_id, number, statement_timestamp() FROM unused
    )
    SELECT DISTINCT unnest(groups) FROM unused
""")

_TAKEN: Final = text("""
    SELECT number, false FROM identities WHERE vpc_id = :vpc
    UNION ALL SELECT number, true FROM retired_identities WHERE vpc_id = :vpc
""")

_GROUPS: Final = any_(bindparam("groups", type_=ARRAY(Uuid)))

_WRITE: Final = text("""
    UPDATE vnics AS v SET identity = n.identity, revision = n.revision
    FROM unnest(:ids, :identities, :revisions) AS n(id, identity, revision)
    WHERE v.id = n.id
""").bindparams(
    bindparam("ids", type_=ARRAY(Uuid)),
    bindparam("identities", type_=ARRAY(Integer)),
    bindparam("revisions", type_=ARRAY(BigInteger)),
)


@dataclass(frozen=True, slots=True)
class Assigned:
    """Numbers of sets, and the hosts whose rules have to learn of new and of retired ones."""

    numbers: Mapping[Groups, int]
    hosts: Collection[UUID] = field(default_factory=set)


async def assign(connection: AsyncConnection, vpc_id: UUID, sets: Iterable[Groups]) -> Assigned:
    """The number of each set, given now if need be. Raises `Conflict` if there are too many."""
    wanted = set(sets)
    named = await _named(connection, {group for groups in wanted for group in groups})
    return await assign_named(connection, vpc_id, wanted, named)


async def assign_named(
    connection: AsyncConnection, vpc_id: UUID, wanted: Collection[Groups], named: Collection[UUID]
) -> Assigned:
    """Like `assign`, with the groups that rules name."""
    concerned = sorted(groups for groups in wanted if not set(groups).isdisjoint(named))
    numbers = dict.fromkeys(wanted, NONE)
    if not concerned:
        return Assigned(numbers)
    numbers |= await _known(connection, vpc_id, concerned)
    new = [groups for groups in concerned if not numbers[groups]]
    if not new:
        return Assigned(numbers)
    given, retired = await _allocate(connection, vpc_id, new)
    numbers |= zip(new, given, strict=True)
    return Assigned(numbers, await _hosts_of_rules(connection, retired.union(*new)))


async def assign_members(connection: AsyncConnection, vpc_id: UUID, group_id: UUID) -> set[UUID]:
    """Give numbers to the members of a group that a rule names now, and publish their routes.

    Returns the hosts that have to be told.
    """
    members = (await connection.execute(_members(vpc_id, group_id))).all()
    if not members:
        return set()
    sets = {row.id: groups_of(row.groups) for row in members}
    assigned = await assign(connection, vpc_id, sets.values())
    await renumber(connection, vpc_id, members, [assigned.numbers[sets[row.id]] for row in members])
    return {row.host_id for row in members} | set(assigned.hosts)


async def renumber(
    connection: AsyncConnection, vpc_id: UUID, rows: Sequence[Record], numbers: Sequence[int]
) -> None:
    """Write the identities of vNICs (n,), rows of id, ip, ip6, mac, vtep, and their routes."""
    locked = await lock_vpc(connection, vpc_id)
    if locked is None:
        raise LookupError(f"VPC {vpc_id} is locked and gone")
    number = {row.id: identity for row, identity in zip(rows, numbers, strict=True)}
    dual = [row for row in rows if row.ip6 is not None]
    keys = keys4([int(row.ip) for row in rows]), keys6(int(row.ip6) for row in dual)
    routes = [*rows, *dual]
    table = entries(
        RouteOp.UPSERT,
        np.concatenate(keys),
        np.array([int(row.vtep) for row in routes], np.uint32),
        np.array([row.mac for row in routes], np.uint64),
        np.array([number[row.id] for row in routes], np.uint16),
    )
    table = await routes_changed(connection, vpc_id, *locked, table)
    last = dict(zip((row.id for row in routes), table["revision"].tolist(), strict=True))
    values = {"ids": list(number), "identities": list(number.values())}
    await connection.execute(_WRITE, values | {"revisions": [last[row] for row in number]})


async def _named(connection: AsyncConnection, groups: Collection[UUID]) -> set[UUID]:
    column = security_group_rules.c.remote_group_id
    query = select(column).distinct().where(column.in_(groups))
    return set((await connection.execute(query)).scalars())


async def _known(
    connection: AsyncConnection, vpc_id: UUID, sets: Sequence[Groups]
) -> dict[Groups, int]:
    query = select(identities.c.groups, identities.c.number).where(
        identities.c.vpc_id == vpc_id, identities.c.groups.in_([list(groups) for groups in sets])
    )
    return {tuple(row.groups): row.number for row in await connection.execute(query)}


async def _allocate(
    connection: AsyncConnection, vpc_id: UUID, sets: Sequence[Groups]
) -> tuple[list[int], set[UUID]]:
    """Numbers for new sets, and the groups of those whose numbers were retired to make room."""
    groups: set[UUID] = set()
    used, retired = await _taken(connection, vpc_id)
    if len(used) + len(sets) > MAX_IDENTITIES:
        groups = set((await connection.execute(_RETIRE_UNUSED, {"vpc": vpc_id})).scalars())
        used, retired = await _taken(connection, vpc_id)
    if len(used) + len(sets) > MAX_IDENTITIES:
        raise Conflict(
            f"vNICs of the VPC are in {len(used)} different sets of security groups that rules"
            f" name, at most {MAX_IDENTITIES} are possible: put more vNICs into the same groups"
        )
    if len(used) + len(retired) + len(sets) > HIGHEST:
        raise Conflict(
            f"the VPC needs {len(sets)} more of its {HIGHEST} numbers for sets of security groups:"
            f" {len(used)} are in use, and {len(retired)} rest that were, until every host and"
            " gateway has reported that it knows them no more: wait, put vNICs into the groups of"
            " others, and ask the operator for hosts that are silent or have vNICs that failed"
        )
    query = select(vpcs.c.next_identity).where(vpcs.c.id == vpc_id)
    begin: int = (await connection.execute(query)).scalar_one()
    numbers = next_free(begin - 1, used | retired, len(sets))
    await connection.execute(
        update(vpcs).where(vpcs.c.id == vpc_id).values(next_identity=numbers[-1] + 1)
    )
    rows = [
        {"vpc_id": vpc_id, "number": number, "groups": list(groups)}
        for number, groups in zip(numbers, sets, strict=True)
    ]
    await connection.execute(insert(identities), rows)
    return numbers, groups


async def _taken(connection: AsyncConnection, vpc_id: UUID) -> tuple[set[int], set[int]]:
    """Numbers that sets have, and retired ones."""
    rows = (await connection.execute(_TAKEN, {"vpc": vpc_id})).all()
    retired = {number for number, rests in rows if rests}
    return {number for number, _ in rows} - retired, retired


async def _hosts_of_rules(connection: AsyncConnection, groups: Collection[UUID]) -> set[UUID]:
    """Hosts of vNICs that have a rule which names one of these groups."""
    links = vnic_security_groups
    query = (
        select(vnics.c.host_id)
        .distinct()
        .join(links, links.c.vnic_id == vnics.c.id)
        .join(
            security_group_rules,
            security_group_rules.c.security_group_id == links.c.security_group_id,
        )
        .where(security_group_rules.c.remote_group_id == _GROUPS, ~vnics.c.withdrawn)
    )
    return set((await connection.execute(query, {"groups": list(groups)})).scalars())


def _members(vpc_id: UUID, group_id: UUID) -> Select[Any]:
    """vNICs in a group that have no number yet, with all their groups."""
    links = vnic_security_groups
    inside = select(links.c.vnic_id).where(links.c.security_group_id == group_id)
    groups = func.array_agg(
        aggregate_order_by(links.c.security_group_id, links.c.security_group_id)
    )
    return (
        select(
            vnics.c.id, vnics.c.ip, vnics.c.ip6, vnics.c.mac, vnics.c.host_id, hosts.c.vtep,
            groups.label("groups"),
        )
        .join(hosts, hosts.c.id == vnics.c.host_id)
        .join(links, links.c.vnic_id == vnics.c.id)
        .where(
            vnics.c.vpc_id == vpc_id,
            vnics.c.id.in_(inside),
            vnics.c.identity == NONE,
            ~vnics.c.withdrawn,
        )
        .group_by(vnics.c.id, hosts.c.vtep)
        .order_by(vnics.c.id)
    )  # fmt: skip
