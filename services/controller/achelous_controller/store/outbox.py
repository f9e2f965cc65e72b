"""What must reach the data plane is written here, in the transaction that changed the state.

Everything that concerns the data plane goes through these functions; the dispatcher
(`programming.dispatcher`) publishes what they recorded. Lock order is VPC, then instances, then
hosts, each by id, then the fleet: a transaction locks its VPCs first and calls `hosts_changed` once
with all its hosts, or has all locked when it begins (`changes.locking`). A creation locks those
that it fills before it knows who else is concerned, so it runs by `database.despite_deadlocks`.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import numpy as np
from sqlalchemy import Double, Uuid, bindparam, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

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
    ), changed AS (
        UPDATE hosts SET revision = hosts.revision + 1 FROM locked WHERE hosts.id = locked.id
        RETURNING hosts.id, hosts.revision
    )
    INSERT INTO outbox (kind, host_id, revision, created_at)
    SELECT 'host', id, revision, :now FROM changed
    RETURNING pg_notify(:channel, '')
""").bindparams(
    bindparam("ids", type_=ARRAY(Uuid)), bindparam("now", type_=Double), channel=CHANNEL
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
    if len(numbered):
        changed = [VpcRoutes(vpc_id, vni, revision, numbered)]
        await bulk.write(connection, (), recorded_routes(changed))
    return numbered


def with_revisions(revision: int, entries: Routes) -> Routes:
    """The entries with the revisions that follow ``revision``, one for each `MAX_DELTA_ENTRIES`."""
    numbered = entries.copy()
    numbered["revision"] = revision + 1 + np.arange(len(entries)) // MAX_DELTA_ENTRIES
    return numbered


async def hosts_changed(connection: AsyncConnection, host_ids: Iterable[UUID]) -> None:
    """Record that anything may have changed in the documents of these hosts."""
    wanted = list(set(host_ids))
    if wanted:
        await connection.execute(_HOSTS_CHANGED, {"ids": wanted, "now": time.time()})


# ---- of instances: what they take part in is locked, and its revisions are known -----------------


HostChange = tuple[UUID, int, int, bytes | None]
"""A host, its new revision, how many vNICs it has more or, below 0, less, and the ids of those that
came or went, 16 bytes each; None: anything may have changed."""


def recorded_routes(changes: Sequence[VpcRoutes], waiting: Sequence[Cohort] = ()) -> list[Part]:
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


def hosts_given(changes: Sequence[HostChange]) -> list[Part]:
    """Gives vNICs to hosts that are locked, or takes them, and tells them which."""
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
