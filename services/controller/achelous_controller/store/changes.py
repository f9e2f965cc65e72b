"""Changes of instances that are there, many in one transaction: locked, written, recorded."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Final, NamedTuple
from uuid import UUID

import numpy as np
from msgspec.structs import replace
from sqlalchemy import Uuid, any_, bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import BigInteger, Boolean, DateTime

from achelous_controller.domain.errors import NotFound
from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.domain.instances import Instance, Vnic
from achelous_controller.domain.pending import Pending, PendingVnic
from achelous_controller.domain.precondition import Precondition
from achelous_controller.domain.route_entries import entries, keys4, keys6
from achelous_controller.store.database import Record
from achelous_controller.store.instances import instance_of
from achelous_controller.store.outbox import hosts_changed, record_routes, with_revisions
from achelous_controller.store.schema import vnics, vpcs
from achelous_shared.routes import RouteOp, Routes

_LOCK_VPCS: Final = (
    select(vpcs.c.id, vpcs.c.vni, vpcs.c.revision)
    .where(
        vpcs.c.id.in_(
            select(vnics.c.vpc_id).where(
                vnics.c.instance_id == any_(bindparam("ids", type_=ARRAY(Uuid)))
            )
        )
    )
    .order_by(vpcs.c.id)
    .with_for_update()
)
# a statement of its own, which sees what those before it in the VPCs' lock have done
_LOCK_INSTANCES: Final = text("""
    SELECT i.id, i.project_id, i.name, i.kind, i.host_id, i.state, i.reason, i.accepted_at,
        i.committed_at, i.published_at, i.gateways_applied_at, i.host_applied_at, i.active_at,
        i.created_at, i.version, v.id AS vnic_id, v.vpc_id, v.subnet_id, v.position, v.ip, v.ip6,
        v.mac, v.identity, v.version AS vnic_version, h.vtep,
        ARRAY(
            SELECT security_group_id FROM vnic_security_groups WHERE vnic_id = v.id ORDER BY 1
        ) AS groups
    FROM instances AS i
    JOIN vnics AS v ON v.instance_id = i.id
    JOIN hosts AS h ON h.id = i.host_id
    WHERE i.id = ANY(:ids)
    ORDER BY i.id, v.position
    FOR UPDATE OF i
""").bindparams(bindparam("ids", type_=ARRAY(Uuid)))
_WRITE: Final = text("""
    WITH ports AS (
        UPDATE vnics AS v
        SET host_id = change.host_id, revision = change.revision, withdrawn = :withdrawn,
            version = v.version + 1
        FROM unnest(:vnics, :vnic_hosts, :route_revisions) AS change (id, host_id, revision)
        WHERE v.id = change.id
    )
    UPDATE instances AS i
    SET state = :state, reason = NULL, host_id = change.host_id, host_revision = change.revision,
        accepted_at = change.accepted_at, committed_at = :now, published_at = NULL,
        gateways_applied_at = NULL, host_applied_at = NULL, active_at = NULL,
        version = i.version + 1
    FROM unnest(:ids, :hosts, :host_revisions, :accepted)
        AS change (id, host_id, revision, accepted_at)
    WHERE i.id = change.id
""").bindparams(
    bindparam("vnics", type_=ARRAY(Uuid)),
    bindparam("vnic_hosts", type_=ARRAY(Uuid)),
    bindparam("route_revisions", type_=ARRAY(BigInteger)),
    bindparam("withdrawn", type_=Boolean),
    bindparam("ids", type_=ARRAY(Uuid)),
    bindparam("hosts", type_=ARRAY(Uuid)),
    bindparam("host_revisions", type_=ARRAY(BigInteger)),
    bindparam("accepted", type_=ARRAY(DateTime(timezone=True))),
    bindparam("now", type_=DateTime(timezone=True)),
)


@dataclass(frozen=True, slots=True)
class Change:
    """A request about an instance, at a version that the caller accepts."""

    instance_id: UUID
    match: Precondition
    accepted_at: datetime


class Locked(NamedTuple):
    """Instances as they are until the transaction ends.

    ``vpcs``: id, vni and revision of those that they are in, in order of id. ``rows``: of each
    instance, one for each vNIC in order of position, with the instance's own columns in all.
    """

    vpcs: Sequence[Record]
    rows: Mapping[UUID, Sequence[Record]]


class Due(NamedTuple):
    """A change that is to be written. ``host_id``, ``vtep``: where its routes lead or have led."""

    accepted_at: datetime
    rows: Sequence[Record]
    host_id: UUID
    vtep: IPv4Address

    @property
    def id(self) -> UUID:
        """The instance's."""
        found: UUID = self.rows[0].id
        return found


async def lock(
    connection: AsyncConnection, project_id: UUID | None, wanted: Sequence[Change]
) -> Locked:
    """Lock the VPCs and the instances, each named once.

    Raises `NotFound`, also for what is not in the project if that is not None, and
    `PreconditionFailed`.
    """
    ids = {"ids": [each.instance_id for each in wanted]}
    locked = (await connection.execute(_LOCK_VPCS, ids)).all()
    rows: dict[UUID, list[Record]] = defaultdict(list)
    for row in await connection.execute(_LOCK_INSTANCES, ids):
        rows[row.id].append(row)
    for each in wanted:
        found = rows.get(each.instance_id)
        if found is None or project_id not in (None, found[0].project_id):
            raise NotFound("instance", each.instance_id)
        each.match.check(found[0].version)
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
    ports = [(row.vnic_id, each.host_id) for each in due for row in each.rows]
    await connection.execute(
        _WRITE,
        {
            "vnics": [vnic_id for vnic_id, _ in ports],
            "vnic_hosts": [host_id for _, host_id in ports],
            "route_revisions": [last[vnic_id] for vnic_id, _ in ports],
            "withdrawn": not stays,
            "ids": [each.id for each in due],
            "hosts": [each.host_id for each in due],
            "host_revisions": [host_revisions[each.host_id] for each in due],
            "accepted": [each.accepted_at for each in due],
            "state": state,
            "now": now,
        },
    )
    pending = _pending(locked, due, state, last, host_revisions, now)
    for vpc, table in routes:  # who waits for them goes with those of the last VPC
        waiting = pending if vpc is routes[-1][0] else ()
        await record_routes(connection, vpc.id, vpc.vni, vpc.revision, table, waiting)
    return {each.id: _written(each, state, now) for each in due}


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
) -> tuple[list[tuple[Record, Routes]], dict[UUID, int]]:
    """The routes of each VPC that has any, and the revision of each vNIC: its last route's."""
    inside: dict[UUID, list[tuple[Record, int]]] = defaultdict(list)
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
        keys = keys4([int(row.ip) for row, _ in single]), keys6(int(row.ip6) for row, _ in dual)
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
        found.append((vpc, table))
    return found, last


def _pending(
    locked: Locked,
    due: Sequence[Due],
    state: InstanceState,
    last: Mapping[UUID, int],
    host_revisions: Mapping[UUID, int],
    now: datetime,
) -> list[Pending]:
    vnis = {vpc.id: vpc.vni for vpc in locked.vpcs}
    return [
        Pending(
            each.id,
            state,
            each.host_id,
            host_revisions[each.host_id],
            tuple([PendingVnic(v.vnic_id, vnis[v.vpc_id], last[v.vnic_id]) for v in each.rows]),
            each.accepted_at.timestamp(),
            now.timestamp(),
        )
        for each in due
    ]


def as_locked(rows: Sequence[Record]) -> Instance:
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


def _vnic(row: Record) -> Vnic:
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
