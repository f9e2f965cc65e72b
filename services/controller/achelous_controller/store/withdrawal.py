"""Withdrawing instances, many in one transaction: routes and ports go now, rows when all let go."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import numpy as np
from sqlalchemy import Uuid, any_, bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import BigInteger, DateTime

from achelous_controller.domain.errors import NotFound
from achelous_controller.domain.instance_state import InstanceState, may_become
from achelous_controller.domain.instances import Instance
from achelous_controller.domain.pending import Cohort, Member, RoutesAt, cohorts
from achelous_controller.domain.precondition import Precondition
from achelous_controller.domain.quotas import Resource
from achelous_controller.domain.route_entries import entries, keys4, keys6
from achelous_controller.store import quotas
from achelous_controller.store.database import Record
from achelous_controller.store.instances import with_vnics
from achelous_controller.store.outbox import hosts_changed, record_routes, with_revisions
from achelous_controller.store.schema import hosts, instances, vnics, vpcs
from achelous_shared.routes import RouteOp, Routes

_IDS: Final = any_(bindparam("ids", type_=ARRAY(Uuid)))

_LOCK_VPCS: Final = (
    select(vpcs.c.id, vpcs.c.vni, vpcs.c.revision)
    .where(vpcs.c.id.in_(select(vnics.c.vpc_id).where(vnics.c.instance_id == _IDS)))
    .order_by(vpcs.c.id)
    .with_for_update()
)
_LOCK_INSTANCES: Final = (
    select(instances).where(instances.c.id == _IDS).order_by(instances.c.id).with_for_update()
)
_HELD: Final = (
    select(vnics.c.id, vnics.c.instance_id, vnics.c.vpc_id, vnics.c.host_id, vnics.c.project_id,
           vnics.c.ip, vnics.c.ip6, vnics.c.mac, hosts.c.vtep)
    .join(hosts, hosts.c.id == vnics.c.host_id)
    .where(vnics.c.instance_id == _IDS)
    .order_by(vnics.c.id)
)  # fmt: skip
_ROUTE_GONE: Final = text("""
    UPDATE vnics AS v SET withdrawn = true, revision = gone.revision, version = v.version + 1
    FROM unnest(:ids, :revisions) AS gone (id, revision)
    WHERE v.id = gone.id
""").bindparams(
    bindparam("ids", type_=ARRAY(Uuid)), bindparam("revisions", type_=ARRAY(BigInteger))
)
_DELETING: Final = text("""
    UPDATE instances AS i
    SET state = 'DELETING', reason = NULL, host_revision = change.revision,
        accepted_at = change.accepted_at, committed_at = :now, published_at = NULL,
        gateways_applied_at = NULL, host_applied_at = NULL, active_at = NULL,
        version = i.version + 1
    FROM unnest(:ids, :revisions, :accepted) AS change (id, revision, accepted_at)
    WHERE i.id = change.id
""").bindparams(
    bindparam("ids", type_=ARRAY(Uuid)),
    bindparam("revisions", type_=ARRAY(BigInteger)),
    bindparam("accepted", type_=ARRAY(DateTime(timezone=True))),
    bindparam("now", type_=DateTime(timezone=True)),
)


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A request to delete an instance at a version that the caller accepts."""

    instance_id: UUID
    match: Precondition
    accepted_at: datetime


async def withdraw(
    connection: AsyncConnection, project_id: UUID | None, wanted: Sequence[Withdrawal]
) -> list[Instance]:
    """Take the instances' routes and ports away; each instance is named once.

    One that is DELETING stays so, and changes nothing. Raises `NotFound` and `PreconditionFailed`.
    """
    ids = {"ids": [each.instance_id for each in wanted]}
    locked = (await connection.execute(_LOCK_VPCS, ids)).all()
    rows = {row.id: row for row in await connection.execute(_LOCK_INSTANCES, ids)}
    leaving = []
    for each in wanted:
        row = rows.get(each.instance_id)
        if row is None or project_id not in (None, row.project_id):
            raise NotFound("instance", each.instance_id)
        each.match.check(row.version)
        if row.state in may_become(InstanceState.DELETING):
            leaving.append((each, row))
    if leaving:
        await _withdraw(connection, locked, leaving)
    left = {row.id: row for row in await connection.execute(_AS_LEFT, ids)}
    return await with_vnics(connection, [left[each.instance_id] for each in wanted])


_AS_LEFT: Final = select(instances).where(instances.c.id == _IDS)


async def _withdraw(
    connection: AsyncConnection,
    locked: Sequence[Record],
    leaving: Sequence[tuple[Withdrawal, Record]],
) -> None:
    ids = [row.id for _, row in leaving]
    held = (await connection.execute(_HELD, {"ids": ids})).all()
    ports: dict[UUID, list[UUID]] = defaultdict(list)
    for vnic in held:
        ports[vnic.host_id].append(vnic.id)
    fewer = {host_id: -len(some) for host_id, some in ports.items()}
    hosts_told = {row.host_id for _, row in leaving}
    revisions = await hosts_changed(connection, hosts_told, ports, fewer)
    now = datetime.now(UTC)
    await connection.execute(
        _DELETING,
        {
            "ids": ids,
            "revisions": [revisions[row.host_id] for _, row in leaving],
            "accepted": [each.accepted_at for each, _ in leaving],
            "now": now,
        },
    )
    await _withdraw_routes(connection, locked, leaving, held, revisions, now)
    count = Counter(row.project_id for _, row in leaving)
    vnic_count = Counter(vnic.project_id for vnic in held)
    for owner in sorted(count):
        amounts: Mapping[Resource, int] = {
            Resource.INSTANCES: count[owner], Resource.VNICS: vnic_count[owner],
        }  # fmt: skip
        await quotas.give_back(connection, owner, amounts)


async def _withdraw_routes(
    connection: AsyncConnection,
    locked: Sequence[Record],
    leaving: Sequence[tuple[Withdrawal, Record]],
    held: Sequence[Record],
    host_revisions: Mapping[UUID, int],
    now: datetime,
) -> None:
    """Record that the routes go; who waits for that goes with those of the last VPC."""
    last: dict[UUID, int] = {}
    vnis = {vpc.id: vpc.vni for vpc in locked}
    for vpc in locked:
        inside = [vnic for vnic in held if vnic.vpc_id == vpc.id]
        table = with_revisions(vpc.revision, _routes(inside))
        # ascending: of a vNIC's two routes the later one counts
        owners = [*inside, *(row for row in inside if row.ip6 is not None)]
        last |= zip((row.id for row in owners), table["revision"].tolist(), strict=True)
        waiting: list[Cohort] = []
        if vpc is locked[-1]:
            waiting = _pending(leaving, held, vnis, last, host_revisions, now)
        await record_routes(connection, vpc.id, vpc.vni, vpc.revision, table, waiting)
    await connection.execute(_ROUTE_GONE, {"ids": list(last), "revisions": list(last.values())})


def _routes(held: Sequence[Record]) -> Routes:
    dual = [row for row in held if row.ip6 is not None]
    keys = keys4([int(row.ip) for row in held]), keys6(int(row.ip6) for row in dual)
    routes = [*held, *dual]
    return entries(
        RouteOp.DELETE,
        np.concatenate(keys),
        np.array([int(row.vtep) for row in routes], np.uint32),
        np.array([row.mac for row in routes], np.uint64),
    )


def _pending(
    leaving: Sequence[tuple[Withdrawal, Record]],
    held: Sequence[Record],
    vnis: Mapping[UUID, int],
    last: Mapping[UUID, int],
    host_revisions: Mapping[UUID, int],
    now: datetime,
) -> list[Cohort]:
    vnics: dict[UUID, list[Record]] = defaultdict(list)
    for vnic in held:
        vnics[vnic.instance_id].append(vnic)
    members = (
        Member(
            row.id,
            row.host_id,
            each.accepted_at.timestamp(),
            [vnic.id for vnic in vnics[row.id]],
            [RoutesAt(vnis[vnic.vpc_id], last[vnic.id]) for vnic in vnics[row.id]],
        )
        for each, row in leaving
    )
    return cohorts(members, InstanceState.DELETING, host_revisions, now.timestamp())
