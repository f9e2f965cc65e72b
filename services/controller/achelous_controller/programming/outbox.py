"""What the leader reads of the outbox, and removes when it is published."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

BATCH_ROWS: Final = 512
BATCH_DOCUMENTS: Final = 2048  # changes
BATCH_BYTES: Final = 1024 * 1024  # 29,000 routes


@dataclass(frozen=True, slots=True)
class RoutesRow:
    """A route delta of the outbox."""

    id: int
    vni: int
    base: int
    revision: int
    entries: bytes
    cohorts: bytes | None
    """Who waits for these routes: `domain.pending`, packed."""
    unnoted: bool
    """Whether its writer, from before there were cohorts, left them out of `pending`."""


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """A change of a document: of a host, or without one of the fleet."""

    id: int
    host_id: UUID | None
    revision: int
    """Of the document by this change."""
    vnics: bytes | None
    """See `schema.outbox`."""
    now: int | None
    """The revision of the host's document; None: the host is gone."""


_TAKE_ROUTES: Final = """
    WITH done AS (DELETE FROM outbox WHERE id = ANY ($1::bigint[]))
    SELECT id, vni, base, revision, entries, cohorts, unnoted
    FROM (
        SELECT *, sum(octet_length(entries)) OVER (ORDER BY id) - octet_length(entries) AS before
        FROM (
            SELECT id, vni, base, revision, entries, cohorts, pending IS NOT NULL AS unnoted
            FROM outbox WHERE kind = 'routes' AND id <> ALL ($1::bigint[])
            ORDER BY id LIMIT $2
        ) AS first
    ) AS sized
    WHERE before < $3
    ORDER BY id
"""


_OUTBOX_DOCUMENTS: Final = text("""
    SELECT o.id, o.host_id, o.revision, o.vnics,
        (SELECT h.revision FROM hosts AS h WHERE h.id = o.host_id)
    FROM outbox AS o WHERE o.kind IN ('host', 'fleet') ORDER BY o.id LIMIT :rows
""")
_OUTBOX_OF_HOSTS: Final = text("""
    SELECT COALESCE(o.id, 0), w.id, COALESCE(o.revision, 0), o.vnics,
        (SELECT h.revision FROM hosts AS h WHERE h.id = w.id)
    FROM unnest(CAST(:hosts AS uuid[])) WITH ORDINALITY AS w (id, place)
    LEFT JOIN outbox AS o ON o.host_id = w.id
    ORDER BY w.place, o.id
""")


async def take_routes(connection: Any, done: Sequence[int]) -> list[RoutesRow]:
    """The oldest route deltas: at most `BATCH_ROWS`, and about `BATCH_BYTES`, at least one.

    Removes those that are ``done``. On a connection of the leader's own, like `depth`.
    """
    found = await connection.fetch(_TAKE_ROUTES, done, BATCH_ROWS, BATCH_BYTES)
    return [RoutesRow(*row) for row in found]


async def read_documents(connection: AsyncConnection) -> list[DocumentRow]:
    """The oldest `BATCH_DOCUMENTS` changes of documents, in order."""
    found = await connection.execute(_OUTBOX_DOCUMENTS, {"rows": BATCH_DOCUMENTS})
    return [DocumentRow(*row) for row in found]


async def read_documents_of(
    connection: AsyncConnection, hosts: Sequence[UUID]
) -> list[DocumentRow]:
    """All changes of documents of these hosts, host by host.

    A host without a change has one row, of id 0.
    """
    found = await connection.execute(_OUTBOX_OF_HOSTS, {"hosts": hosts})
    return [DocumentRow(*row) for row in found]


async def delete(connection: AsyncConnection, ids: Sequence[int]) -> None:
    """Remove what was published."""
    query = text("DELETE FROM outbox WHERE id = ANY(CAST(:ids AS bigint[]))")
    await connection.execute(query, {"ids": ids})


async def depth(connection: Any) -> int:
    """Rows in the outbox, counted up to 100,000; on a connection of the leader's own."""
    rows: int = await connection.fetchval(
        "SELECT count(*) FROM (SELECT FROM outbox LIMIT 100000) AS counted"
    )
    return rows
