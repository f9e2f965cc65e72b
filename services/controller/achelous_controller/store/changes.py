"""Changes of instances that are there, many in one transaction: locked, written, recorded."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple
from uuid import UUID

import numpy as np
from msgspec.structs import replace
from sqlalchemy import Uuid, any_, bindparam, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.errors import NotFound
from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.domain.instances import Instance, Vnic
from achelous_controller.domain.pending import Cohort, Member, RoutesAt, cohorts
from achelous_controller.domain.precondition import Precondition
from achelous_controller.domain.route_entries import entries, keys4, keys6
from achelous_controller.store.database import Record, driver_of
from achelous_controller.store.instances import instance_of
from achelous_controller.store.outbox import VpcRoutes, hosts_changed, record_routes, with_revisions
from achelous_controller.store.schema import vnics, vpcs
from achelous_shared.routes import RouteOp

_IDS: Final = any_(bindparam("ids", type_=ARRAY(Uuid)))
_LOCK_VPCS: Final = (
    select(vpcs.c.id, vpcs.c.vni, vpcs.c.revision)
    .where(vpcs.c.id.in_(select(vnics.c.vpc_id).where(vnics.c.instance_id == _IDS)))
    .order_by(vpcs.c.id)
    .with_for_update()
)
# not in one statement with the above: it sees what was done under the VPCs' lock before
_LOCK_INSTANCES: Final = """
    SELECT i.id, i.project_id, i.name, i.kind, i.host_id, i.state, i.reason, i.accepted_at,
        i.committed_at, i.published_at, i.gateways_applied_at, i.host_applied_at, i.active_at,
        i.created_at, i.version, v.id AS vnic_id, v.vpc_id, v.subnet_id, v.position, v.ip, v.ip6,
        v.mac, v.identity, v.version AS vnic_version,
        (SELECT vtep FROM hosts WHERE id = i.host_id) AS vtep,
        ARRAY(
            SELECT security_group_id FROM vnic_security_groups WHERE vnic_id = v.id ORDER BY 1
        ) AS groups
    FROM instances AS i
    JOIN vnics AS v ON v.instance_id = i.id
    WHERE i.id = ANY($1::uuid[]) AND v.instance_id = ANY($1::uuid[])
    ORDER BY i.id, v.position
    FOR UPDATE OF i
"""
_WRITE: Final = """
    WITH ports AS (
        UPDATE vnics AS v
        SET host_id = change.host_id, revision = change.revision, withdrawn = $1 = 'DELETING',
            version = v.version + 1
        FROM unnest($3::uuid[], $4::uuid[], $5::bigint[]) AS change (id, host_id, revision)
        WHERE v.id = change.id
    ), freed AS (
        UPDATE usage AS u
        SET instances = u.instances - given.instances, vnics = u.vnics - given.vnics
        FROM unnest($6::uuid[], $7::bigint[], $8::bigint[]) AS given (project_id, instances, vnics)
        WHERE u.project_id = given.project_id AND u.project_id = ANY(ARRAY(
            SELECT project_id FROM usage WHERE project_id = ANY($6) ORDER BY 1 FOR UPDATE
        ))
    )
    UPDATE instances AS i
    SET state = $1, reason = NULL, host_id = change.host_id, host_revision = change.revision,
        accepted_at = change.accepted_at, committed_at = $2, published_at = NULL,
        gateways_applied_at = NULL, host_applied_at = NULL, active_at = NULL,
        version = i.version + 1
    FROM unnest($9::uuid[], $10::uuid[], $11::bigint[], $12::timestamptz[])
        AS change (id, host_id, revision, accepted_at)
    WHERE i.id = change.id
"""


class Row(NamedTuple):
    """A vNIC, behind its instance: the columns of `_LOCK_INSTANCES`."""

    id: UUID
    project_id: UUID
    name: str
    kind: str
    host_id: UUID
    state: str
    reason: str | None
    accepted_at: datetime
    committed_at: datetime | None
    published_at: datetime | None
    gateways_applied_at: datetime | None
    host_applied_at: datetime | None
    active_at: datetime | None
    created_at: datetime
    version: int
    vnic_id: UUID
    vpc_id: UUID
    subnet_id: UUID
    position: int
    ip: IPv4Address
    ip6: IPv6Address | None
    mac: int
    identity: int
    vnic_version: int
    vtep: IPv4Address
    groups: Sequence[UUID]


@dataclass(frozen=True, slots=True)
class Change:
    """A request about an instance, at a version that the caller accepts."""

    instance_id: UUID
    match: Precondition
    accepted_at: datetime


class Locked(NamedTuple):
    """Instances as they are until the transaction ends.

    ``vpcs``: id, vni and revision of those that they are in, in order of id. ``rows``: of each
    instance, in order of position.
    """

    vpcs: Sequence[Record]
    rows: Mapping[UUID, Sequence[Row]]


class Due(NamedTuple):
    """A change that is to be written. ``host_id``, ``vtep``: where its routes lead or have led."""

    accepted_at: datetime
    rows: Sequence[Row]
    host_id: UUID
    vtep: IPv4Address

    @property
    def id(self) -> UUID:
        """The instance's."""
        return self.rows[0].id


async def lock(
    connection: AsyncConnection, project_id: UUID | None, wanted: Sequence[Change]
) -> Locked:
    """Lock the VPCs and the instances, each named once.

    Raises `NotFound`, also for what is not in the project if that is not None, and
    `PreconditionFailed`.
    """
    ids = [each.instance_id for each in wanted]
    locked = (await connection.execute(_LOCK_VPCS, {"ids": ids})).all()
    rows: dict[UUID, list[Row]] = defaultdict(list)
    for found in await (await driver_of(connection)).fetch(_LOCK_INSTANCES, ids):
        rows[found["id"]].append(Row(*found))
    for each in wanted:
        if each.instance_id not in rows:
            raise NotFound("instance", each.instance_id)
        instance = rows[each.instance_id][0]
        if project_id not in (None, instance.project_id):
            raise NotFound("instance", each.instance_id)
        each.match.check(instance.version)
    return Locked(locked, rows)


async def write(
    connection: AsyncConnection, locked: Locked, due: Sequence[Due], state: InstanceState
) -> dict[UUID, Instance]:
    """Bring the instances into ``state``, BUILDING at their host or DELETING, and tell hosts and
    gateways; the instances as they are then, by id."""
    now = datetime.now(UTC)
    stays = state is not InstanceState.DELETING
    host_revisions = await _tell_hosts(connection, due, stays=stays)
    routes, last = _routes(locked, due, RouteOp.UPSERT if stays else RouteOp.DELETE)
    ports = [(row.vnic_id, each.host_id, last[row.vnic_id]) for each in due for row in each.rows]
    await (await driver_of(connection)).execute(
        _WRITE,
        state,
        now,
        *zip(*ports, strict=True),
        *_given_back([] if stays else due),
        [each.id for each in due],
        [each.host_id for each in due],
        [host_revisions[each.host_id] for each in due],
        [each.accepted_at for each in due],
    )
    waiting = _cohorts(locked, due, state, last, host_revisions, now)
    await record_routes(connection, routes, waiting)
    return {each.id: _written(each, state, now) for each in due}


def _given_back(gone: Sequence[Due]) -> tuple[list[UUID], list[int], list[int]]:
    """Projects, and how many instances and vNICs each no longer has."""
    count = Counter([each.rows[0].project_id for each in gone])
    vnic_count = Counter([row.project_id for each in gone for row in each.rows])
    return list(count), list(count.values()), [vnic_count[owner] for owner in count]


async def _tell_hosts(
    connection: AsyncConnection, due: Sequence[Due], *, stays: bool
) -> dict[UUID, int]:
    """Record which vNICs left their hosts and, if they stay, came to others; new revisions."""
    ports: dict[UUID, list[UUID]] = defaultdict(list)
    more: Counter[UUID] = Counter()
    for each in due:
        vnic_ids = [row.vnic_id for row in each.rows]
        before = each.rows[0].host_id
        ports[before] += vnic_ids
        more[before] -= len(vnic_ids)
        if stays:
            ports[each.host_id] += vnic_ids
            more[each.host_id] += len(vnic_ids)
    return await hosts_changed(connection, ports, ports, more)


def _routes(
    locked: Locked, due: Sequence[Due], op: RouteOp
) -> tuple[list[VpcRoutes], dict[UUID, int]]:
    """The routes of each VPC that has any, and the revision of each vNIC: its last route's."""
    inside: dict[UUID, list[tuple[Row, int]]] = defaultdict(list)
    for each in due:
        vtep = int(each.vtep)
        for row in each.rows:
            inside[row.vpc_id].append((row, vtep))
    found = []
    last: dict[UUID, int] = {}
    for vpc in locked.vpcs:
        if vpc.id not in inside:
            continue
        single = inside[vpc.id]
        dual = [(row, vtep) for row, vtep in single if row.ip6 is not None]
        both = single + dual
        keys = (
            keys4([int(row.ip) for row, _ in single]),
            keys6(int(row.ip6) for row, _ in single if row.ip6 is not None),
        )
        table = entries(
            op,
            np.concatenate(keys),
            np.array([vtep for _, vtep in both], np.uint32),
            np.array([row.mac for row, _ in both], np.uint64),
            np.array([row.identity for row, _ in both], np.uint16),
        )
        table = with_revisions(vpc.revision, table)
        # ascending: of a vNIC's two routes the later one counts
        last |= zip((row.vnic_id for row, _ in both), table["revision"].tolist(), strict=True)
        found.append(VpcRoutes(vpc.id, vpc.vni, vpc.revision, table))
    return found, last


def _cohorts(
    locked: Locked,
    due: Sequence[Due],
    state: InstanceState,
    last: Mapping[UUID, int],
    host_revisions: Mapping[UUID, int],
    now: datetime,
) -> list[Cohort]:
    vnis = {vpc.id: vpc.vni for vpc in locked.vpcs}
    members = (
        Member(
            each.id,
            each.host_id,
            each.accepted_at.timestamp(),
            [row.vnic_id for row in each.rows],
            [RoutesAt(vnis[row.vpc_id], last[row.vnic_id]) for row in each.rows],
        )
        for each in due
    )
    return cohorts(members, state, host_revisions, now.timestamp())


def as_locked(rows: Sequence[Row]) -> Instance:
    """An instance as its rows have it."""
    return instance_of(rows[0], tuple([_vnic(row) for row in rows]))


def _written(due: Due, state: InstanceState, now: datetime) -> Instance:
    """What `_WRITE` made of an instance."""
    before = as_locked(due.rows)
    return replace(
        before,
        host_id=due.host_id,
        state=state,
        reason=None,
        accepted_at=due.accepted_at,
        committed_at=now,
        published_at=None,
        gateways_applied_at=None,
        host_applied_at=None,
        active_at=None,
        version=before.version + 1,
        vnics=tuple([replace(v, host_id=due.host_id, version=v.version + 1) for v in before.vnics]),
    )


def _vnic(row: Row) -> Vnic:
    return Vnic(
        id=row.vnic_id,
        project_id=row.project_id,
        instance_id=row.id,
        vpc_id=row.vpc_id,
        subnet_id=row.subnet_id,
        host_id=row.host_id,
        position=row.position,
        ip=row.ip,
        ip6=row.ip6,
        mac=row.mac,
        security_group_ids=tuple(row.groups),
        version=row.vnic_version,
    )
