"""Pending instances in the database: what the leader reads and writes, many rows a statement.

Rows are locked in order of id, so that two of these never wait for each other in a circle.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.instance_state import InstanceState, may_become
from achelous_controller.programming.pending import Pending, PendingVnic

_PENDING_COLUMNS: Final = """
    i.id, i.state, i.host_id, i.host_revision, i.reason,
    CAST(extract(epoch FROM i.accepted_at) AS double precision) AS accepted_at,
    CAST(extract(epoch FROM i.committed_at) AS double precision) AS committed_at,
    CAST(extract(epoch FROM i.published_at) AS double precision) AS published_at
"""


async def pending_stages(
    connection: AsyncConnection,
) -> dict[UUID, tuple[InstanceState, int]]:
    """(state, host revision) of every instance that is not ACTIVE."""
    query = text("SELECT id, state, host_revision FROM instances WHERE state <> 'ACTIVE'")
    return {
        row.id: (InstanceState(row.state), row.host_revision)
        for row in await connection.execute(query)
    }


_PENDING: Final = text(f"""
    SELECT {_PENDING_COLUMNS}, v.id AS vnic_id, v.vni, v.revision
    FROM instances AS i JOIN vnics AS v ON v.instance_id = i.id
    WHERE i.id = ANY(CAST(:ids AS uuid[])) AND i.state <> 'ACTIVE'
    ORDER BY i.id
""")  # noqa: S608  constants of this module


async def load_pending(connection: AsyncConnection, ids: Sequence[UUID]) -> list[Pending]:
    """Those of these instances that are not ACTIVE."""
    return _pending(await connection.execute(_PENDING, {"ids": ids}))


def _pending(rows: Iterable[Row[Any]]) -> list[Pending]:
    """Instances from rows in order of instance, one a vNIC."""
    found: list[Pending] = []
    for row in rows:
        vnic = PendingVnic(row.vnic_id, row.vni, row.revision)
        if found and found[-1].id == row.id:
            found[-1].vnics += (vnic,)
            continue
        found.append(
            Pending(
                id=row.id,
                state=InstanceState(row.state),
                host_id=row.host_id,
                host_revision=row.host_revision,
                vnics=(vnic,),
                accepted_at=row.accepted_at,
                committed_at=row.committed_at,
                published_at=row.published_at,
                reason=row.reason,
            )
        )
    return found


# ---- what became of them -------------------------------------------------------------------------

_ACTIVATE: Final = text("""
    WITH wanted AS (
        SELECT *
        FROM unnest(
            CAST(:ids AS uuid[]), CAST(:revisions AS bigint[]),
            CAST(:published AS double precision[]),
            CAST(:gateways AS double precision[]), CAST(:hosts AS double precision[])
        ) AS wanted (id, host_revision, published_at, gateways_at, host_at)
    ), still AS (
        SELECT i.id, coalesce(
                wanted.published_at, least(wanted.gateways_at, wanted.host_at)
            ) AS published_at, wanted.gateways_at, wanted.host_at
        FROM instances AS i JOIN wanted USING (id)
        WHERE i.state = ANY(CAST(:from_states AS text[])) AND i.host_revision = wanted.host_revision
        ORDER BY i.id
        FOR UPDATE OF i
    )
    UPDATE instances AS i
    SET state = 'ACTIVE', reason = NULL, version = i.version + 1,
        published_at = coalesce(i.published_at, to_timestamp(still.published_at)),
        gateways_applied_at = to_timestamp(gateways_at),
        host_applied_at = to_timestamp(host_at),
        active_at = to_timestamp(:at)
    FROM still
    WHERE i.id = still.id
    RETURNING i.id
""")


async def activate(
    connection: AsyncConnection, instances: Sequence[Pending], at: float
) -> frozenset[UUID]:
    """Make them ACTIVE, but for those that have moved on meanwhile; the ids of those made."""
    made = await connection.execute(
        _ACTIVATE,
        {
            "ids": [instance.id for instance in instances],
            "revisions": [instance.host_revision for instance in instances],
            "published": [instance.published_at for instance in instances],
            "gateways": [instance.gateways_applied_at for instance in instances],
            "hosts": [instance.host_applied_at for instance in instances],
            "from_states": sorted(may_become(InstanceState.ACTIVE)),
            "at": at,
        },
    )
    return frozenset(made.scalars())


_OVERDUE: Final = text("""
    WITH wanted AS (
        SELECT *
        FROM unnest(
            CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:revisions AS bigint[]),
            CAST(:reasons AS text[]), CAST(:published AS double precision[]),
            CAST(:gateways AS double precision[]), CAST(:hosts AS double precision[])
        ) AS wanted (id, state, host_revision, reason, published_at, gateways_at, host_at)
    ), still AS (
        SELECT i.id, wanted.reason, wanted.published_at, wanted.gateways_at, wanted.host_at
        FROM instances AS i JOIN wanted USING (id)
        WHERE i.state = wanted.state AND i.host_revision = wanted.host_revision
        ORDER BY i.id
        FOR UPDATE OF i
    )
    UPDATE instances AS i
    SET state = CASE WHEN i.state = ANY(CAST(:from_states AS text[])) THEN 'ERROR' ELSE i.state END,
        reason = still.reason, version = i.version + 1,
        published_at = coalesce(i.published_at, to_timestamp(still.published_at)),
        gateways_applied_at = to_timestamp(gateways_at),
        host_applied_at = to_timestamp(host_at)
    FROM still
    WHERE i.id = still.id
""")


async def note_overdue(connection: AsyncConnection, overdue: Sequence[tuple[Pending, str]]) -> None:
    """Write what they wait for; who may become ERROR does."""
    await connection.execute(
        _OVERDUE,
        {
            "ids": [instance.id for instance, _ in overdue],
            "states": [instance.state for instance, _ in overdue],
            "revisions": [instance.host_revision for instance, _ in overdue],
            "reasons": [reason for _, reason in overdue],
            "published": [instance.published_at for instance, _ in overdue],
            "gateways": [instance.gateways_applied_at for instance, _ in overdue],
            "hosts": [instance.host_applied_at for instance, _ in overdue],
            "from_states": sorted(may_become(InstanceState.ERROR)),
        },
    )


_LOCK_GONE: Final = text("""
    SELECT i.id
    FROM instances AS i
    JOIN unnest(CAST(:ids AS uuid[]), CAST(:revisions AS bigint[])) AS gone (id, host_revision)
        USING (id)
    WHERE i.state = 'DELETING' AND i.host_revision = gone.host_revision
    ORDER BY i.id
    FOR UPDATE OF i
""")


_REMOVE: Final = text("""
    WITH gone AS (
        DELETE FROM vnics WHERE instance_id = ANY(CAST(:ids AS uuid[])) RETURNING id
    ), links AS (
        DELETE FROM vnic_security_groups WHERE vnic_id IN (SELECT id FROM gone)
    )
    DELETE FROM instances WHERE id = ANY(CAST(:ids AS uuid[]))
""")


async def remove_gone(connection: AsyncConnection, instances: Sequence[Pending]) -> int:
    """Delete the rows of instances that are withdrawn everywhere; how many. In a transaction.

    What they used of hosts and quotas was given back when their deletion was accepted.
    """
    locked = await connection.execute(
        _LOCK_GONE,
        {
            "ids": [instance.id for instance in instances],
            "revisions": [instance.host_revision for instance in instances],
        },
    )
    ids = {"ids": list(locked.scalars())}
    await connection.execute(_REMOVE, ids)
    return len(ids["ids"])
