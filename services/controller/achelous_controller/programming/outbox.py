"""What the leader reads of the outbox, and removes when it is published."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

BATCH_ROWS: Final = 512
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


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """A document of the outbox: of a host, or without one of the fleet."""

    id: int
    host_id: UUID | None


_OUTBOX_ROUTES: Final = text("""
    SELECT id, vni, base, revision, entries, cohorts
    FROM (
        SELECT *, sum(octet_length(entries)) OVER (ORDER BY id) - octet_length(entries) AS before
        FROM (SELECT * FROM outbox WHERE kind = 'routes' ORDER BY id LIMIT :rows) AS first
    ) AS sized
    WHERE before < :bytes
    ORDER BY id
""")


async def read_routes(connection: AsyncConnection) -> list[RoutesRow]:
    """The oldest route deltas: at most `BATCH_ROWS`, and about `BATCH_BYTES`, at least one."""
    found = await connection.execute(_OUTBOX_ROUTES, {"rows": BATCH_ROWS, "bytes": BATCH_BYTES})
    return [RoutesRow(*row) for row in found]


async def read_documents(connection: AsyncConnection) -> list[DocumentRow]:
    """The oldest `BATCH_ROWS` changes of documents."""
    query = text(
        "SELECT id, host_id FROM outbox WHERE kind IN ('host', 'fleet') ORDER BY id LIMIT :rows"
    )
    return [DocumentRow(*row) for row in await connection.execute(query, {"rows": BATCH_ROWS})]


async def delete(connection: AsyncConnection, ids: Sequence[int]) -> None:
    """Remove what was published."""
    query = text("DELETE FROM outbox WHERE id = ANY(CAST(:ids AS bigint[]))")
    await connection.execute(query, {"ids": ids})


async def depth(connection: AsyncConnection) -> int:
    """Rows in the outbox, counted up to 100,000."""
    query = text("SELECT count(*) FROM (SELECT FROM outbox LIMIT 100000) AS counted")
    rows: int = (await connection.execute(query)).scalar_one()
    return rows
