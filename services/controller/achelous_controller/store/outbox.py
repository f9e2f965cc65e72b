"""What must reach the data plane is written here, in the transaction that changed the state.

Everything that concerns the data plane goes through these three functions; the dispatcher
(`programming.dispatcher`) publishes what they recorded. Lock order is VPC, then hosts by id, then
the fleet: a transaction calls `routes_changed` first and `hosts_changed` once, with all its hosts.
"""

import time
from collections.abc import Iterable
from typing import Final
from uuid import UUID

from sqlalchemy import Double, Uuid, bindparam, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.store.schema import fleet, outbox, vpcs
from achelous_shared.routes import MAX_DELTA_ENTRIES, Routes, pack

CHANNEL: Final = "achelous_outbox"
"""NOTIFY channel that wakes the dispatcher."""

_WAKE: Final = func.pg_notify(CHANNEL, "")

_HOSTS_CHANGED: Final = text("""
    WITH locked AS (
        SELECT id FROM hosts WHERE id = ANY(:ids) ORDER BY id FOR UPDATE
    ), changed AS (
        UPDATE hosts SET revision = hosts.revision + 1
        FROM locked WHERE hosts.id = locked.id
        RETURNING hosts.id, hosts.revision
    )
    INSERT INTO outbox (kind, host_id, revision, created_at)
    SELECT 'host', id, revision, :now FROM changed
    RETURNING host_id, revision, pg_notify(:channel, '')
""").bindparams(
    bindparam("ids", type_=ARRAY(Uuid)),
    bindparam("now", type_=Double),
    channel=CHANNEL,
)


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
    to the vNICs' rows. Every chunk of `MAX_DELTA_ENTRIES` takes a revision of its own.
    """
    entries = entries.copy()
    rows = []
    for start in range(0, len(entries), MAX_DELTA_ENTRIES):
        chunk = entries[start : start + MAX_DELTA_ENTRIES]
        base, revision = revision, revision + 1
        chunk["revision"] = revision
        rows.append(
            {
                "kind": "routes",
                "vni": vni,
                "base": base,
                "revision": revision,
                "entries": pack(chunk),
                "created_at": time.time(),
            }
        )
    if rows:
        await connection.execute(update(vpcs).where(vpcs.c.id == vpc_id).values(revision=revision))
        await connection.execute(insert(outbox).returning(_WAKE), rows)
    return entries


async def hosts_changed(connection: AsyncConnection, host_ids: Iterable[UUID]) -> dict[UUID, int]:
    """Record that the documents of these hosts changed; their new revisions."""
    wanted = list(set(host_ids))
    if not wanted:
        return {}
    result = await connection.execute(_HOSTS_CHANGED, {"ids": wanted, "now": time.time()})
    return {row.host_id: row.revision for row in result}


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
