"""What must reach the data plane is written here, in the transaction that changed the state.

Everything that concerns the data plane goes through these functions; the dispatcher
(`programming.dispatcher`) publishes what they recorded. Lock order is VPC, then hosts by id, then
the fleet: a transaction locks its VPCs first and calls `hosts_changed` once, with all its hosts.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from uuid import UUID

import numpy as np
from sqlalchemy import Double, Uuid, bindparam, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import BigInteger, Integer, LargeBinary

from achelous_controller.domain.pending import Cohort, pack_cohorts
from achelous_controller.store.schema import fleet, outbox, vpcs
from achelous_shared.routes import MAX_DELTA_ENTRIES, Routes, pack

CHANNEL: Final = "achelous_outbox"
"""NOTIFY channel that wakes the dispatcher."""

_WAKE: Final = func.pg_notify(CHANNEL, "")

_ROUTES_CHANGED: Final = text("""
    WITH reached AS (
        UPDATE vpcs SET revision = CAST(:revision AS bigint) + :count WHERE id = :vpc
    ), waiting AS (
        INSERT INTO pending (instance_id, host_id, host_revision)
        SELECT CAST(encode(substr(ids, place * 16 + 1, 16), 'hex') AS uuid), host_id, host_revision
        FROM unnest(:hosts, :host_revisions, :instances) AS cohort (host_id, host_revision, ids),
            generate_series(0, octet_length(ids) / 16 - 1) AS place
        ON CONFLICT (instance_id) DO UPDATE
        SET host_id = excluded.host_id, host_revision = excluded.host_revision
    )
    INSERT INTO outbox (kind, vni, base, revision, entries, cohorts, created_at)
    SELECT 'routes', :vni, CAST(:revision AS bigint) + place - 1, CAST(:revision AS bigint) + place,
        entries, cohorts, :now
    FROM unnest(:entries, :cohorts) WITH ORDINALITY AS delta (entries, cohorts, place)
    ORDER BY place
    RETURNING pg_notify(:channel, '')
""").bindparams(
    bindparam("vpc", type_=Uuid),
    bindparam("vni", type_=Integer),
    bindparam("count", type_=Integer),
    bindparam("entries", type_=ARRAY(LargeBinary)),
    bindparam("cohorts", type_=ARRAY(LargeBinary)),
    bindparam("hosts", type_=ARRAY(Uuid)),
    bindparam("host_revisions", type_=ARRAY(BigInteger)),
    bindparam("instances", type_=ARRAY(LargeBinary)),
    bindparam("now", type_=Double),
    channel=CHANNEL,
)

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
    await record_routes(connection, vpc_id, vni, revision, numbered)
    return numbered


def with_revisions(revision: int, entries: Routes) -> Routes:
    """The entries with the revisions that follow ``revision``, one for each `MAX_DELTA_ENTRIES`."""
    numbered = entries.copy()
    numbered["revision"] = revision + 1 + np.arange(len(entries)) // MAX_DELTA_ENTRIES
    return numbered


async def record_routes(
    connection: AsyncConnection,
    vpc_id: UUID,
    vni: int,
    revision: int,
    numbered: Routes,
    waiting: Sequence[Cohort] = (),
) -> None:
    """Like `routes_changed`, of entries `with_revisions`. ``waiting``: who waits for them.

    Their instances are noted as pending; the leader notices by itself who waits for no entries.
    """
    deltas = [
        pack(numbered[start : start + MAX_DELTA_ENTRIES])
        for start in range(0, len(numbered), MAX_DELTA_ENTRIES)
    ]
    if not deltas and not waiting:
        return
    packed = pack_cohorts(waiting) if waiting else None
    values = {
        "vpc": vpc_id,
        "vni": vni,
        "revision": revision,
        "count": len(deltas),
        "entries": deltas,
        "cohorts": [*[None] * (len(deltas) - 1), packed][: len(deltas)],
        "hosts": [cohort.host_id for cohort in waiting],
        "host_revisions": [cohort.host_revision for cohort in waiting],
        "instances": [cohort.instances for cohort in waiting],
        "now": time.time(),
    }
    await connection.execute(_ROUTES_CHANGED, values)


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
