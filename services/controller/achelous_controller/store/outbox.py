"""What must reach the data plane is written here, in the transaction that changed the state.

Everything that concerns the data plane goes through these three functions; the dispatcher
(`programming.dispatcher`) publishes what they recorded. Lock order is VPC, then hosts by id, then
the fleet: a transaction calls `routes_changed` first and `hosts_changed` once, with all its hosts.
"""

import time
from collections.abc import Iterable
from typing import Final
from uuid import UUID

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.store.schema import fleet, hosts, outbox, vpcs
from achelous_shared.routes import MAX_DELTA_ENTRIES, Routes, pack

CHANNEL: Final = "achelous_outbox"
"""NOTIFY channel that wakes the dispatcher."""


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
        await connection.execute(insert(outbox), rows)
        await _notify(connection)
    return entries


async def hosts_changed(connection: AsyncConnection, host_ids: Iterable[UUID]) -> dict[UUID, int]:
    """Record that the documents of these hosts changed; their new revisions."""
    wanted = sorted(set(host_ids))
    if not wanted:
        return {}
    locked = select(hosts.c.id).where(hosts.c.id.in_(wanted)).order_by(hosts.c.id).with_for_update()
    await connection.execute(locked)
    result = await connection.execute(
        update(hosts)
        .where(hosts.c.id.in_(wanted))
        .values(revision=hosts.c.revision + 1)
        .returning(hosts.c.id, hosts.c.revision)
    )
    revisions: dict[UUID, int] = {row.id: row.revision for row in result}
    await connection.execute(
        insert(outbox),
        [
            {"kind": "host", "host_id": host, "revision": revision, "created_at": time.time()}
            for host, revision in revisions.items()
        ],
    )
    await _notify(connection)
    return revisions


async def fleet_changed(connection: AsyncConnection) -> int:
    """Record that a host or gateway came, went or moved; the fleet's new revision."""
    result = await connection.execute(
        update(fleet).values(revision=fleet.c.revision + 1).returning(fleet.c.revision)
    )
    revision: int = result.scalar_one()
    await connection.execute(
        insert(outbox), [{"kind": "fleet", "revision": revision, "created_at": time.time()}]
    )
    await _notify(connection)
    return revision


async def _notify(connection: AsyncConnection) -> None:
    await connection.execute(select(func.pg_notify(CHANNEL, "")))
