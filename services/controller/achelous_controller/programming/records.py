"""Pending instances in the database: what the leader reads and writes, many rows a statement.

On a connection of the leader's own, which hashes what it joins: how many ids a statement is told is
not known when it is prepared, and a nested loop over some thousands of both sides takes seconds. A
row that somebody else has locked is left for the next look, so nobody here waits, nor in a circle.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from achelous_controller.domain.instance_state import InstanceState, may_become
from achelous_controller.domain.pending import Cohort, RoutesAt, latest
from achelous_controller.programming.pending import Change, Pending
from achelous_controller.programming.sql import ids_in

SESSION: Final = {"enable_nestloop": "off", "statement_timeout": "15s"}
"""Settings of the connection that these functions are given."""

_SIZES: Final = "SELECT host_id, host_revision, count(*) FROM pending GROUP BY 1, 2"


async def sizes(connection: Any) -> dict[Change, int]:
    """Number of instances that are not ACTIVE, by change."""
    return {(host_id, at): size for host_id, at, size in await connection.fetch(_SIZES)}


_LOAD: Final = """
    WITH named AS (
        SELECT pending.* FROM pending
        JOIN unnest($1::uuid[], $2::bigint[]) AS change (host_id, host_revision)
            USING (host_id, host_revision)
    ), wanted AS (
        SELECT i.* FROM instances AS i JOIN named
            ON i.id = instance_id AND (i.host_id, i.host_revision)
                = (named.host_id, named.host_revision)
        WHERE i.id = ANY (ARRAY(SELECT instance_id FROM named)) AND i.state <> 'ACTIVE'
    ), ports AS (
        SELECT instance_id, array_agg(vni ORDER BY vni, id) AS vnis,
            string_agg(uuid_send(id), '' ORDER BY vni, id) AS ids,
            string_agg(int8send(revision), '' ORDER BY vni, id) AS revisions
        FROM vnics WHERE instance_id = ANY (ARRAY(SELECT id FROM wanted)) GROUP BY instance_id
    )
    SELECT i.state, i.host_id, i.host_revision, i.reason,
        extract(epoch FROM i.committed_at)::double precision AS committed_at,
        extract(epoch FROM i.published_at)::double precision AS published_at, ports.vnis,
        string_agg(uuid_send(i.id), '' ORDER BY i.id) AS instances,
        string_agg(ports.ids, '' ORDER BY i.id) AS vnics,
        string_agg(ports.revisions, '' ORDER BY i.id) AS revisions,
        string_agg(float8send(extract(epoch FROM i.accepted_at)::double precision), ''
            ORDER BY i.id) AS accepted_at
    FROM wanted AS i JOIN ports ON ports.instance_id = i.id
    GROUP BY 1, 2, 3, 4, 5, 6, 7
"""


async def load(connection: Any, changes: Sequence[Change]) -> list[Pending]:
    """The instances that are not ACTIVE of these changes."""
    hosts, revisions = [host for host, _ in changes], [at for _, at in changes]
    return [_loaded(row) for row in await connection.fetch(_LOAD, hosts, revisions)]


def _loaded(row: Any) -> Pending:
    revisions = np.frombuffer(row["revisions"], ">i8").reshape(-1, len(row["vnis"])).max(axis=0)
    cohort = Cohort(
        state=InstanceState(row["state"]),
        host_id=row["host_id"],
        host_revision=row["host_revision"],
        routes=latest(map(RoutesAt, row["vnis"], revisions.tolist())),
        committed_at=row["committed_at"],
        instances=row["instances"],
        vnics=row["vnics"],
        accepted_at=np.frombuffer(row["accepted_at"], ">f8").astype("<f8").tobytes(),
    )
    return Pending(cohort, row["published_at"], row["reason"])


_MISSED: Final = """
    INSERT INTO pending (instance_id, host_id, host_revision)
    SELECT id, host_id, host_revision FROM instances WHERE state <> 'ACTIVE'
    ON CONFLICT (instance_id) DO UPDATE
    SET host_id = excluded.host_id, host_revision = excluded.host_revision
    WHERE (pending.host_id, pending.host_revision)
        <> (excluded.host_id, excluded.host_revision)
"""
_OVER: Final = """
    DELETE FROM pending AS p
    WHERE NOT EXISTS (SELECT FROM instances WHERE id = p.instance_id AND state <> 'ACTIVE')
"""


async def recount(connection: Any) -> None:
    """Make `pending` what `instances` says, which reads the whole table.

    For the start of a term, and for what controllers from before there was `pending` have written.
    """
    await connection.execute(_MISSED)
    await connection.execute(_OVER)


# ---- what became of them -------------------------------------------------------------------------

_ACTIVATE: Final = f"""
    WITH wanted AS (
        SELECT * FROM unnest(
            $2::uuid[], $3::bigint[],
            $4::double precision[], $5::double precision[], $6::double precision[]
        ) WITH ORDINALITY AS wanted (
            host_id, host_revision, published_at, gateways_at, host_at, place
        )
    ), still AS (
        SELECT id FROM instances
        WHERE id = ANY ({ids_in("$1")}) AND state = ANY ($7::text[])
        FOR NO KEY UPDATE SKIP LOCKED
    ), made AS (
        UPDATE instances AS i
        SET state = 'ACTIVE', reason = NULL, version = i.version + 1,
            published_at = coalesce(i.published_at, to_timestamp(
                coalesce(wanted.published_at, least(gateways_at, host_at))
            )),
            gateways_applied_at = to_timestamp(gateways_at),
            host_applied_at = to_timestamp(host_at),
            active_at = to_timestamp($8)
        FROM wanted
        WHERE i.id = ANY (ARRAY(SELECT id FROM still))
            AND i.host_id = wanted.host_id AND i.host_revision = wanted.host_revision
        RETURNING i.id, wanted.place
    ), over AS (
        DELETE FROM pending WHERE instance_id = ANY (ARRAY(SELECT id FROM made))
    )
    SELECT place, count(*) AS size FROM made GROUP BY place
"""  # noqa: S608  constants of this module
_BEFORE_ACTIVE: Final = sorted(may_become(InstanceState.ACTIVE))
_BEFORE_ERROR: Final = sorted(may_become(InstanceState.ERROR))


async def activate(connection: Any, parts: Sequence[Pending], at: float) -> dict[Change, int]:
    """Make their instances ACTIVE, but for those that have moved on; how many of each change."""
    wanted = list({part.change: part for part in parts}.values())
    rows = await connection.fetch(
        _ACTIVATE,
        _ids(parts),
        [part.cohort.host_id for part in wanted],
        [part.cohort.host_revision for part in wanted],
        [part.published_at for part in wanted],
        [part.gateways_applied_at for part in wanted],
        [part.host_applied_at for part in wanted],
        _BEFORE_ACTIVE,
        at,
    )
    return {wanted[row["place"] - 1].change: row["size"] for row in rows}


_OVERDUE: Final = """
    UPDATE instances AS i
    SET state = CASE WHEN i.state = ANY ($8::text[]) THEN 'ERROR' ELSE i.state END,
        reason = late.reason, version = i.version + 1,
        published_at = coalesce(i.published_at, to_timestamp(late.published_at)),
        gateways_applied_at = to_timestamp(gateways_at),
        host_applied_at = to_timestamp(host_at)
    FROM unnest(
        $1::uuid[], $2::uuid[], $3::bigint[], $4::text[],
        $5::double precision[], $6::double precision[], $7::double precision[]
    ) AS late (id, host_id, host_revision, reason, published_at, gateways_at, host_at)
    WHERE i.id = late.id AND i.id = ANY (ARRAY(
            SELECT id FROM instances
            WHERE id = ANY ($1::uuid[]) AND state <> 'ACTIVE' FOR NO KEY UPDATE SKIP LOCKED
        ))
        AND i.host_id = late.host_id AND i.host_revision = late.host_revision
"""


async def note_overdue(connection: Any, overdue: Sequence[tuple[Pending, str]]) -> None:
    """Write what they wait for; who may become ERROR does."""
    each = [
        (instance, part.cohort.host_id, part.cohort.host_revision, reason, part.published_at,
         part.gateways_applied_at, part.host_applied_at)
        for part, reason in overdue for instance in part.instances()
    ]  # fmt: skip
    await connection.execute(_OVERDUE, *map(list, zip(*each, strict=True)), _BEFORE_ERROR)


_REMOVE: Final = f"""
    WITH gone AS (
        SELECT i.id FROM instances AS i
        JOIN unnest($2::uuid[], $3::bigint[]) AS gone (host_id, host_revision)
            USING (host_id, host_revision)
        WHERE i.id = ANY ({ids_in("$1")}) AND i.state = 'DELETING'
        FOR UPDATE OF i SKIP LOCKED
    ), ports AS (
        DELETE FROM vnics WHERE instance_id = ANY (ARRAY(SELECT id FROM gone)) RETURNING id
    ), links AS (
        DELETE FROM vnic_security_groups WHERE vnic_id = ANY (ARRAY(SELECT id FROM ports))
    ), over AS (
        DELETE FROM pending WHERE instance_id = ANY (ARRAY(SELECT id FROM gone))
    )
    DELETE FROM instances WHERE id = ANY (ARRAY(SELECT id FROM gone))
"""  # noqa: S608  constants of this module


async def remove_gone(connection: Any, parts: Sequence[Pending]) -> None:
    """Delete the rows of instances that are withdrawn everywhere.

    What they used of hosts and quotas was given back when their deletion was accepted.
    """
    changes = list({part.change for part in parts})
    await connection.execute(
        _REMOVE, _ids(parts), [host for host, _ in changes], [at for _, at in changes]
    )


def _ids(parts: Sequence[Pending]) -> bytes:
    return b"".join([part.cohort.instances for part in parts])
