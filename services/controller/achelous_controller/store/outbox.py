"""What must reach the data plane is written here, in the transaction that changed the state.

Everything that concerns the data plane goes through these functions; the dispatcher
(`programming.dispatcher`) publishes what they recorded. Lock order is VPC, then hosts by id, then
the fleet: a transaction locks its VPCs first and calls `hosts_changed` once, with all its hosts.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import numpy as np
from sqlalchemy import Double, Uuid, bindparam, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import Integer, LargeBinary

from achelous_controller.domain.pending import Cohort, pack_cohorts
from achelous_controller.store import bulk
from achelous_controller.store.bulk import Part
from achelous_controller.store.schema import fleet, outbox, vpcs
from achelous_shared.routes import MAX_DELTA_ENTRIES, Routes, pack

CHANNEL: Final = "achelous_outbox"
"""NOTIFY channel that wakes the dispatcher."""

_WAKE: Final = func.pg_notify(CHANNEL, "")

_HOSTS_CHANGED: Final = text("""
    WITH locked AS (
        SELECT id FROM hosts WHERE id = ANY(:ids) ORDER BY id FOR UPDATE
    ), told AS (
        SELECT * FROM unnest(:ids, :vnics, :counts) AS told (id, vnics, count)
    ), changed AS (
        UPDATE hosts
        SET revision = hosts.revision + 1, vnic_count = hosts.vnic_count + told.count
        FROM locked JOIN told USING (id) WHERE hosts.id = locked.id
        RETURNING hosts.id, hosts.revision, told.vnics
    )
    INSERT INTO outbox (kind, host_id, revision, vnics, created_at)
    SELECT 'host', id, revision, vnics, :now FROM changed
    RETURNING host_id, revision, pg_notify(:channel, '')
""").bindparams(
    bindparam("ids", type_=ARRAY(Uuid)),
    bindparam("vnics", type_=ARRAY(LargeBinary)),
    bindparam("counts", type_=ARRAY(Integer)),
    bindparam("now", type_=Double),
    channel=CHANNEL,
)


@dataclass(frozen=True, slots=True)
class VpcRoutes:
    """Routes that a VPC has from now on, `with_revisions` after ``revision``."""

    vpc_id: UUID
    vni: int
    revision: int
    routes: Routes


async def lock_vpc(connection: AsyncConnection, vpc_id: UUID) -> tuple[int, int] | None:
    """Lock a VPC for this transaction; its (vni, revision), or None if there is none."""
    row = (
        await connection.execute(
            select(vpcs.c.vni, vpcs.c.revision).where(vpcs.c.id == vpc_id).with_for_update()
        )
    ).one_or_none()
    return None if row is None else (row.vni, row.revision)


async def routes_changed(
    connection: AsyncConnection, vpc_id: UUID, vni: int, revision: int, entries: Routes
) -> Routes:
    """Record changed routes of a VPC that `lock_vpc` locked at ``revision``.

    Returns ``entries`` (`routes.ROUTE`) with the revision of each filled in; the caller writes it
    to the vNICs' rows.
    """
    numbered = with_revisions(revision, entries)
    await record_routes(connection, [VpcRoutes(vpc_id, vni, revision, numbered)])
    return numbered


def with_revisions(revision: int, entries: Routes) -> Routes:
    """The entries with the revisions that follow ``revision``, one for each `MAX_DELTA_ENTRIES`."""
    numbered = entries.copy()
    numbered["revision"] = revision + 1 + np.arange(len(entries)) // MAX_DELTA_ENTRIES
    return numbered


async def record_routes(
    connection: AsyncConnection, changes: Sequence[VpcRoutes], waiting: Sequence[Cohort] = ()
) -> None:
    """Record routes of VPCs that are locked. ``waiting``: who waits for them.

    Their instances are noted as pending; the leader notices by itself who waits for no entries.
    """
    some = [of for of in changes if len(of.routes)]
    parts = [_noted(waiting)] if waiting else []
    if some:
        parts += recorded_routes(some, waiting)
    if parts:
        await bulk.write(connection, (), parts)


async def hosts_changed(
    connection: AsyncConnection,
    host_ids: Iterable[UUID],
    vnics: Mapping[UUID, Sequence[UUID]] | None = None,
    counts: Mapping[UUID, int] | None = None,
) -> dict[UUID, int]:
    """Record that the documents of these hosts changed; their new revisions.

    ``vnics``: of hosts where nothing changed but that these vNICs came or went. ``counts``: how
    many more vNICs hosts have, or fewer.
    """
    known, more = vnics or {}, counts or {}
    wanted = list(set(host_ids))
    if not wanted:
        return {}
    packed = [b"".join(v.bytes for v in known[host]) if host in known else None for host in wanted]
    values = {
        "ids": wanted,
        "vnics": packed,
        "counts": [more.get(host, 0) for host in wanted],
        "now": time.time(),
    }
    result = await connection.execute(_HOSTS_CHANGED, values)
    return {row.host_id: row.revision for row in result}


# ---- of new instances: what they take part in is locked, and its revisions are known -------------


HostChange = tuple[UUID, int, int, bytes | None]
"""A host, its new revision, how many vNICs it has more, and their ids; None: see `hosts_changed`"""


def recorded_routes(changes: Sequence[VpcRoutes], waiting: Sequence[Cohort]) -> list[Part]:
    """Records the routes of VPCs that are locked, and wakes the dispatcher.

    ``waiting``, who waits for them, goes with those of the last VPC.
    """
    deltas = [
        (of.vni, int(routes[0]["revision"]), pack(routes))
        for of in changes
        for routes in _deltas(of.routes)
    ]
    packed = [*[None] * (len(deltas) - 1), pack_cohorts(waiting) if waiting else None]
    reached = [(of.vpc_id, int(of.routes[-1]["revision"])) for of in changes]
    return [
        Part("reached", _REACHED, _columns(reached)),
        Part("routes", _ROUTES_RECORDED, (time.time(), *_columns(deltas), packed)),
    ]


def _noted(waiting: Sequence[Cohort]) -> Part:
    """Notes instances that may have been pending before."""
    cohorts = [(cohort.host_id, cohort.host_revision, cohort.instances) for cohort in waiting]
    return Part("noted", _NOTED, _columns(cohorts))


def hosts_given(changes: Sequence[HostChange]) -> list[Part]:
    """Gives vNICs to hosts that are locked, and tells them what came."""
    ids, revisions, counts, vnics = _columns(changes)
    return [
        Part("given", _HOSTS_GIVEN, (ids, revisions, counts)),
        Part("told", _HOSTS_TOLD, (time.time(), ids, revisions, vnics)),
    ]


def _deltas(routes: Routes) -> list[Routes]:
    return [
        routes[start : start + MAX_DELTA_ENTRIES]
        for start in range(0, len(routes), MAX_DELTA_ENTRIES)
    ]


def _columns(rows: Sequence[tuple[object, ...]]) -> tuple[list[object], ...]:
    return tuple(map(list, zip(*rows, strict=True)))


_NOTED: Final = """
    INSERT INTO pending (instance_id, host_id, host_revision)
    SELECT CAST(encode(substr(ids, place * 16 + 1, 16), 'hex') AS uuid), host_id, host_revision
    FROM unnest({}::uuid[], {}::bigint[], {}::bytea[]) AS cohort (host_id, host_revision, ids),
        generate_series(0, octet_length(ids) / 16 - 1) AS place
    ON CONFLICT (instance_id) DO UPDATE
    SET host_id = excluded.host_id, host_revision = excluded.host_revision
"""
_REACHED: Final = """
    UPDATE vpcs AS v SET revision = new.revision
    FROM unnest({}::uuid[], {}::bigint[]) AS new (id, revision) WHERE v.id = new.id
"""
_ROUTES_RECORDED: Final = f"""
    INSERT INTO outbox (kind, created_at, vni, base, revision, entries, cohorts)
    SELECT 'routes', {{}}::float8, vni, revision - 1, revision, entries, cohorts
    FROM unnest({{}}::int[], {{}}::bigint[], {{}}::bytea[], {{}}::bytea[]) WITH ORDINALITY
        AS delta (vni, revision, entries, cohorts, place)
    ORDER BY place
    RETURNING pg_notify('{CHANNEL}', '')
"""  # noqa: S608  constants of this module
_HOSTS_GIVEN: Final = """
    UPDATE hosts AS h SET revision = new.revision, vnic_count = h.vnic_count + new.count
    FROM unnest({}::uuid[], {}::bigint[], {}::int[]) AS new (id, revision, count)
    WHERE h.id = new.id
"""
_HOSTS_TOLD: Final = """
    INSERT INTO outbox (kind, created_at, host_id, revision, vnics)
    SELECT 'host', {}::float8, id, revision, vnics
    FROM unnest({}::uuid[], {}::bigint[], {}::bytea[]) AS new (id, revision, vnics)
"""


async def fleet_changed(connection: AsyncConnection) -> int:
    """Record that a host or gateway came, went or moved; the fleet's new revision."""
    result = await connection.execute(
        update(fleet).values(revision=fleet.c.revision + 1).returning(fleet.c.revision)
    )
    revision: int = result.scalar_one()
    await connection.execute(
        insert(outbox)
        .values(kind="fleet", revision=revision, created_at=time.time())
        .returning(_WAKE)
    )
    return revision
