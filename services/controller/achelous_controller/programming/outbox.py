"""What the leader reads of the outbox, and removes when it is published."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from achelous_controller.domain.ids import ID_BYTES
from achelous_controller.programming.documents import PORT_COLUMNS, PORTS, ReadPorts, ports_of

BATCH_ROWS: Final = 512
BATCH_DOCUMENTS: Final = 2048  # changes
BATCH_BYTES: Final = 1024 * 1024  # 29,000 routes
FEW_PORTS: Final = 512


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


@dataclass(frozen=True, slots=True)
class Rows:
    """What one look found."""

    routes: list[RoutesRow]
    documents: list[DocumentRow]
    ports: ReadPorts | None
    """Those that the documents' rows name; None: they were not read."""

    @property
    def all(self) -> bool:
        """Whether there was no more."""
        size = sum(len(row.entries) for row in self.routes)
        return (
            size < BATCH_BYTES
            and len(self.routes) < BATCH_ROWS
            and len(self.documents) < BATCH_DOCUMENTS
        )


_ROW_COLUMNS: Final = 10
_NAMED_HERE: Final = """v.id = ANY (ARRAY(
    SELECT encode(substr(vnics, n * 16 + 1, 16), 'hex')::uuid
    FROM rows, generate_series(0, octet_length(vnics) / 16 - 1) AS n
    WHERE (SELECT sum(octet_length(vnics)) FROM rows) <= $4
))"""
_READ: Final = f"""
    WITH rows AS MATERIALIZED (
        (
            SELECT id, NULL::uuid AS host_id, revision, NULL::bytea AS vnics, NULL::bigint AS now,
                vni, base, entries, cohorts, unnoted
            FROM (
                SELECT *,
                    sum(octet_length(entries)) OVER (ORDER BY id) - octet_length(entries) AS before
                FROM (
                    SELECT id, vni, base, revision, entries, cohorts,
                        pending IS NOT NULL AS unnoted
                    FROM outbox WHERE kind = 'routes' ORDER BY id LIMIT $1
                ) AS first
            ) AS sized
            WHERE before < $2
        ) UNION ALL (
            SELECT o.id, o.host_id, o.revision, o.vnics,
                (SELECT h.revision FROM hosts AS h WHERE h.id = o.host_id),
                NULL, NULL, NULL, NULL, NULL
            FROM outbox AS o WHERE o.kind IN ('host', 'fleet') ORDER BY o.id LIMIT $3
        )
    ), ports AS ({PORTS.format(which=_NAMED_HERE)})
    SELECT rows.*{", NULL" * PORT_COLUMNS} FROM rows
    UNION ALL SELECT {"NULL, " * _ROW_COLUMNS} ports.* FROM ports
    ORDER BY 1, {_ROW_COLUMNS + 2}
"""  # noqa: S608  constants
_OF_HOSTS: Final = """
    SELECT COALESCE(o.id, 0), w.id, COALESCE(o.revision, 0), o.vnics,
        (SELECT h.revision FROM hosts AS h WHERE h.id = w.id)
    FROM unnest($1::uuid[]) WITH ORDINALITY AS w (id, place)
    LEFT JOIN outbox AS o ON o.host_id = w.id
    ORDER BY w.place, o.id
"""
SESSION: Final = {"idle_in_transaction_session_timeout": "0", "statement_timeout": "15s"}
"""Settings of the connection that these functions are given."""
_BEGIN: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


async def begin(connection: Any) -> None:
    """Begin the transaction of the next look. It sees the database as of its first statement; until
    that it holds nothing, so it is begun ahead of time.

    On a connection of the leader's own, like all of this module but `depth`.
    """
    await connection.execute(_BEGIN)


async def end(connection: Any, published: Sequence[int]) -> None:
    """End the look, remove these rows and `begin` the next one: a single message."""
    ids = ",".join(map(str, published))
    remove = f"BEGIN; DELETE FROM outbox WHERE id = ANY ('{{{ids}}}'); COMMIT; " if ids else ""  # noqa: S608  numbers
    await connection.execute(f"COMMIT; {remove}{_BEGIN}")


async def read(connection: Any) -> Rows:
    """The oldest route deltas, at most `BATCH_ROWS` and about `BATCH_BYTES`, at least one; and the
    oldest `BATCH_DOCUMENTS` changes of documents, with the ports that they name if these are at
    most `FEW_PORTS`. In order."""
    routes: list[RoutesRow] = []
    documents: list[DocumentRow] = []
    found = await connection.fetch(
        _READ, BATCH_ROWS, BATCH_BYTES, BATCH_DOCUMENTS, FEW_PORTS * ID_BYTES
    )
    named = []
    for row in found:
        if (id_ := row[0]) is None:
            named.append(row[_ROW_COLUMNS:])
        elif (vni := row[5]) is None:
            documents.append(DocumentRow(id_, *row[1:5]))
        else:
            routes.append(RoutesRow(id_, vni, row[6], row[2], *row[7:_ROW_COLUMNS]))
    size = sum(len(row.vnics or b"") for row in documents)
    few = size <= FEW_PORTS * ID_BYTES and len(documents) < BATCH_DOCUMENTS
    return Rows(routes, documents, ports_of(named) if few else None)


async def read_of_hosts(connection: Any, hosts: Sequence[UUID]) -> list[DocumentRow]:
    """All changes of documents of these hosts, host by host.

    A host without a change has one row, of id 0.
    """
    return [DocumentRow(*row) for row in await connection.fetch(_OF_HOSTS, hosts)]


async def depth(connection: Any) -> int:
    """Rows in the outbox, counted up to 100,000."""
    rows: int = await connection.fetchval(
        "SELECT count(*) FROM (SELECT FROM outbox LIMIT 100000) AS counted"
    )
    return rows
