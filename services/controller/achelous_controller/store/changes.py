"""Changes of instances that are there, many in one transaction: locked, read, written, recorded.

That is four messages to the database: BEGIN with all locks, what is there, all writes, COMMIT.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg
import numpy as np

from achelous_controller.domain.errors import NotFound
from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.domain.instances import MAX_VNICS, Instance, Vnic
from achelous_controller.domain.pending import Cohort, Member, RoutesAt, cohorts
from achelous_controller.domain.precondition import Precondition
from achelous_controller.domain.route_entries import entry
from achelous_controller.store import bulk, outbox
from achelous_controller.store.bulk import Part
from achelous_controller.store.database import Prepared, array
from achelous_controller.store.instances import instance_of
from achelous_controller.store.outbox import HostChange, VpcRoutes
from achelous_shared.routes import MAX_DELTA_ENTRIES, ROUTE, RouteOp

MAX_CHANGES: Final = MAX_DELTA_ENTRIES // (2 * MAX_VNICS)
"""Instances of one transaction: a delta of their VPC holds all their routes."""

_LOCK_VPCS: Final = """
    SELECT FROM vpcs WHERE id = ANY(ARRAY(
        SELECT vpc_id FROM vnics WHERE instance_id = ANY($1::uuid[])
    )) ORDER BY id FOR UPDATE
"""
_LOCK_INSTANCES: Final = """
    SELECT FROM instances WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE
"""
_LOCK_HOSTS: Final = """
    SELECT FROM hosts WHERE id = ANY($2::uuid[] || ARRAY(
        SELECT host_id FROM instances WHERE id = ANY($1::uuid[])
    )) ORDER BY id FOR UPDATE
"""
# all that it reads is locked, but for security groups: their VPC's lock guards who is in them
_READ: Final = """
    SELECT i.id, i.project_id, i.name, i.kind, i.host_id, i.state, i.reason, i.accepted_at,
        i.committed_at, i.published_at, i.gateways_applied_at, i.host_applied_at, i.active_at,
        i.created_at, i.version, v.id, v.vpc_id, v.subnet_id, v.position, v.ip, v.ip6, v.mac,
        v.identity, v.version, ARRAY(
            SELECT security_group_id FROM vnic_security_groups WHERE vnic_id = v.id ORDER BY 1
        ), vpc.vni, vpc.revision, host.vtep, host.revision, goal.vtep, goal.revision,
        goal.vnic_count, goal.capacity, goal.draining
    FROM unnest($1::uuid[], $2::uuid[]) AS wanted (id, host_id)
    JOIN instances AS i ON i.id = wanted.id
    JOIN vnics AS v ON v.instance_id = i.id
    JOIN vpcs AS vpc ON vpc.id = v.vpc_id
    LEFT JOIN hosts AS host ON host.id = i.host_id
    LEFT JOIN hosts AS goal ON goal.id = wanted.host_id
    ORDER BY v.position
"""
_CHANGED: Final = """
    UPDATE instances AS i
    SET state = {}, reason = NULL, host_id = new.host_id, host_revision = new.host_revision,
        accepted_at = new.accepted_at, committed_at = {}, published_at = NULL,
        gateways_applied_at = NULL, host_applied_at = NULL, active_at = NULL,
        version = i.version + 1
    FROM unnest({}::uuid[], {}::uuid[], {}::bigint[], {}::timestamptz[])
        AS new (id, host_id, host_revision, accepted_at)
    WHERE i.id = new.id
    RETURNING i.id, i.host_id, i.host_revision, i.state
"""
_PORTS_CHANGED: Final = """
    UPDATE vnics AS v
    SET host_id = changed.host_id, revision = vpc.revision,
        withdrawn = changed.state = 'DELETING', version = v.version + 1
    FROM changed, unnest({}::uuid[], {}::bigint[]) AS vpc (id, revision)
    WHERE v.instance_id = changed.id AND v.vpc_id = vpc.id
"""
_NOTED: Final = """
    INSERT INTO pending (instance_id, host_id, host_revision)
    SELECT id, host_id, host_revision FROM changed
    ON CONFLICT (instance_id) DO UPDATE
    SET host_id = excluded.host_id, host_revision = excluded.host_revision
"""
_FREED: Final = """
    UPDATE usage AS u
    SET instances = u.instances - given.instances, vnics = u.vnics - given.vnics
    FROM unnest({}::uuid[], {}::bigint[], {}::bigint[]) AS given (project_id, instances, vnics)
    WHERE u.project_id = given.project_id AND u.project_id = ANY(ARRAY(
        SELECT project_id FROM usage WHERE project_id = ANY({}) ORDER BY 1 FOR UPDATE
    ))
"""


class Row(NamedTuple):
    """A vNIC, behind its instance: the columns of `_READ`."""

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
    groups: Sequence[UUID]
    vni: int
    vpc_revision: int
    vtep: IPv4Address
    host_revision: int
    goal_vtep: IPv4Address | None
    """Of the host that it shall have. None, as all that follows: there is no such host."""
    goal_revision: int
    goal_vnic_count: int
    goal_capacity: int
    goal_draining: bool


@dataclass(frozen=True, slots=True)
class Change:
    """A request about an instance, at a version that the caller accepts."""

    instance_id: UUID
    match: Precondition
    accepted_at: datetime


class Host(NamedTuple):
    """A host that is locked at ``revision``."""

    id: UUID
    vtep: IPv4Address
    revision: int


class Due(NamedTuple):
    """A change that is to be written. ``host``: where the instance's routes lead or have led."""

    accepted_at: datetime
    rows: Sequence[Row]
    host: Host

    @property
    def id(self) -> UUID:
        """The instance's."""
        return self.rows[0].id


Found = Mapping[UUID, Sequence[Row]]
"""The rows of each instance, in order of position."""


def locking(wanted: Sequence[Change], host_ids: Sequence[UUID] = ()) -> list[Prepared]:
    """Statements that lock what changes of these instances take part in, each as it is when the one
    before had its locks. ``host_ids``: hosts beside those that they are on. At most `MAX_CHANGES`.
    """
    if len(wanted) > MAX_CHANGES:
        raise ValueError(f"{len(wanted)} changes at once, at most {MAX_CHANGES} are")
    ids = array([each.instance_id for each in wanted])
    return [
        Prepared("lock_vpcs_of", _LOCK_VPCS, (ids,)),
        Prepared("lock_instances", _LOCK_INSTANCES, (ids,)),
        Prepared("lock_hosts_of", _LOCK_HOSTS, (ids, array(host_ids))),
    ]


async def read(
    driver: asyncpg.Connection,
    project_id: UUID | None,
    wanted: Sequence[Change],
    host_ids: Sequence[UUID] = (),
) -> Found:
    """What `locking` locked, each instance named once. ``host_ids``: that each shall have, if any.

    Raises `NotFound`, also for what is not in the project if that is not None, and
    `PreconditionFailed`.
    """
    found: dict[UUID, list[Row]] = defaultdict(list)
    ids = [each.instance_id for each in wanted]
    for row in map(Row._make, await driver.fetch(_READ, ids, host_ids)):
        found[row.id].append(row)
    for each in wanted:
        if each.instance_id not in found:
            raise NotFound("instance", each.instance_id)
        instance = found[each.instance_id][0]
        if project_id not in (None, instance.project_id):
            raise NotFound("instance", each.instance_id)
        each.match.check(instance.version)
    return found


async def write(
    driver: asyncpg.Connection,
    wanted: Sequence[Change],
    found: Found,
    due: Sequence[Due],
    state: InstanceState,
) -> list[Instance]:
    """Bring what is ``due`` into ``state``, BUILDING at its host or DELETING, and tell hosts and
    gateways; all that is ``wanted``, as it is then, in its order."""
    now = datetime.now(UTC)
    if due:
        await _write(driver, due, state, now)
    written = {each.id: _written(each, state, now) for each in due}
    return [written.get(each.instance_id) or _as_read(found[each.instance_id]) for each in wanted]


async def _write(
    driver: asyncpg.Connection, due: Sequence[Due], state: InstanceState, now: datetime
) -> None:
    stays = state is not InstanceState.DELETING
    routes = _routes(due, RouteOp.UPSERT if stays else RouteOp.DELETE)
    await bulk.carry_out(
        driver,
        [
            _changed(due, state, now),
            Part(
                "ports_changed",
                _PORTS_CHANGED,
                ([of.vpc_id for of in routes], [of.revision + 1 for of in routes]),
            ),
            Part("noted", _NOTED, ()),
            *([] if stays else [_freed(due)]),
            *outbox.hosts_given(_hosts(due, stays=stays)),
            *outbox.recorded_routes(routes, _cohorts(due, state, now)),
        ],
    )


def _changed(due: Sequence[Due], state: InstanceState, now: datetime) -> Part:
    return Part(
        "changed",
        _CHANGED,
        (
            state,
            now,
            [each.id for each in due],
            [each.host.id for each in due],
            [each.host.revision + 1 for each in due],
            [each.accepted_at for each in due],
        ),
    )


def _freed(gone: Sequence[Due]) -> Part:
    """Counts what projects no longer have."""
    sizes: dict[UUID, list[int]] = defaultdict(list)
    for each in gone:
        sizes[each.rows[0].project_id].append(len(each.rows))
    ids = list(sizes)
    counts = [len(each) for each in sizes.values()]
    return Part("freed", _FREED, (ids, counts, [sum(each) for each in sizes.values()], ids))


def _hosts(due: Sequence[Due], *, stays: bool) -> list[HostChange]:
    """Which vNICs left their hosts and, if they stay, came to others."""
    told: dict[UUID, tuple[int, list[bytes], list[bytes]]] = {}
    for each in due:
        first, ids = each.rows[0], [row.vnic_id.bytes for row in each.rows]
        _, _, left = told.setdefault(first.host_id, (first.host_revision + 1, [], []))
        left += ids
        if stays:
            _, came, _ = told.setdefault(each.host.id, (each.host.revision + 1, [], []))
            came += ids
    return [
        (host_id, revision, len(came) - len(left), b"".join([*came, *left]))
        for host_id, (revision, came, left) in told.items()
    ]


def _routes(due: Sequence[Due], op: RouteOp) -> list[VpcRoutes]:
    """The routes of each VPC, all at the revision that follows its own."""
    packed: dict[tuple[UUID, int, int], list[bytes]] = defaultdict(list)
    for each in due:
        vtep = each.host.vtep
        for row in each.rows:
            table = packed[row.vpc_id, row.vni, row.vpc_revision]
            for ip in (row.ip, row.ip6) if row.ip6 else (row.ip,):
                table.append(entry(op, ip, vtep, row.mac, row.identity, row.vpc_revision + 1))
    return [VpcRoutes(*vpc, np.frombuffer(b"".join(table), ROUTE)) for vpc, table in packed.items()]


def _cohorts(due: Sequence[Due], state: InstanceState, now: datetime) -> list[Cohort]:
    members = (
        Member(
            each.id,
            each.host.id,
            each.accepted_at.timestamp(),
            [row.vnic_id for row in each.rows],
            [RoutesAt(row.vni, row.vpc_revision + 1) for row in each.rows],
        )
        for each in due
    )
    host_revisions = {each.host.id: each.host.revision + 1 for each in due}
    return cohorts(members, state, host_revisions, now.timestamp())


def _as_read(rows: Sequence[Row]) -> Instance:
    """An instance as its rows have it."""
    first = rows[0]
    return instance_of(first, tuple([_vnic(row, row.host_id, row.vnic_version) for row in rows]))


def _written(due: Due, state: InstanceState, now: datetime) -> Instance:
    """What `_write` made of an instance."""
    first, host_id = due.rows[0], due.host.id
    changed = first._replace(
        host_id=host_id,
        state=state,
        reason=None,
        accepted_at=due.accepted_at,
        committed_at=now,
        published_at=None,
        gateways_applied_at=None,
        host_applied_at=None,
        active_at=None,
        version=first.version + 1,
    )
    vnics = [_vnic(row, host_id, row.vnic_version + 1) for row in due.rows]
    return instance_of(changed, tuple(vnics))


def _vnic(row: Row, host_id: UUID, version: int) -> Vnic:
    return Vnic(
        id=row.vnic_id,
        project_id=row.project_id,
        instance_id=row.id,
        vpc_id=row.vpc_id,
        subnet_id=row.subnet_id,
        host_id=host_id,
        position=row.position,
        ip=row.ip,
        ip6=row.ip6,
        mac=row.mac,
        security_group_ids=tuple(row.groups),
        version=version,
    )
