"""Replies to POST requests, kept so that a repeated one is answered and not carried out again."""

import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import delete, func, text
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.errors import Conflict
from achelous_controller.store import bulk
from achelous_controller.store.bulk import Part
from achelous_controller.store.database import Prepared
from achelous_controller.store.schema import idempotency_keys

LIFETIME: Final = timedelta(hours=24)
KEPT: Final = "kept"
"""What `reading` finds, by name."""

_ZLIB_LEVEL: Final = 1  # replies to batches have megabytes, and repeat themselves
_WORTH_PACKING: Final = 4096
_PACKED: Final = b"\x78"
"""Begins what zlib wrote; a reply in JSON does not."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply as it was sent."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """A request with an Idempotency-Key; ``request_hash`` tells it from others."""

    token_id: UUID
    key: str
    request_hash: bytes

    def busy(self) -> Conflict:
        """While another carries it out."""
        return Conflict(f"a request with the Idempotency-Key {self.key!r} is being carried out now")


_LOCK: Final = """
    SELECT pg_advisory_xact_lock(hashtextextended(convert_from(name, 'UTF8'), 0))
    FROM unnest($1::bytea[]) AS name
"""
_KEPT: Final = """
    SELECT ROW(token_id, key, request_hash, status, headers, body) FROM idempotency_keys
    WHERE token_id = ANY({}::uuid[]) AND key = ANY({}::text[]) AND created_at > now() - {}::interval
"""
_KEEP: Final = """
    INSERT INTO idempotency_keys (token_id, key, request_hash, status, headers, body, created_at)
    SELECT *, now()
    FROM unnest({}::uuid[], {}::text[], {}::bytea[], {}::smallint[], {}::jsonb[], {}::bytea[])
    ON CONFLICT (token_id, key) DO UPDATE
    SET request_hash = excluded.request_hash, status = excluded.status,
        headers = excluded.headers, body = excluded.body, created_at = excluded.created_at
"""


def locking(claims: Collection[Claim]) -> list[Prepared]:
    """Locks the keys, as statements of `Database.write`: who has the same waits, and finds the
    reply of the first. In one order, so that none wait for each other."""
    if not claims:
        return []
    names = sorted(f"{claim.token_id}/{claim.key}".encode().hex() for claim in claims)
    written = ",".join([rf'"\\x{name}"' for name in names])  # no quotes of the caller's
    return [Prepared("lock_keys", _LOCK, (f"'{{{written}}}'",))]


def reading(claims: Sequence[Claim]) -> Part:
    """Reads the replies that requests had; their keys are locked."""
    return Part(KEPT, _KEPT, (*_names(claims), LIFETIME))


def replies(claims: Sequence[Claim], rows: Sequence[tuple[Any, ...]]) -> list[Reply | None]:
    """The reply that each request had, or None: it is new, and this transaction does it.

    ``rows``: what `reading` found. Raises `Conflict` when a key was used for a different request.
    """
    kept = {(row[0], row[1]): row[2:] for row in rows}
    found: list[Reply | None] = []
    for claim in claims:
        row = kept.get((claim.token_id, claim.key))
        if row is None:
            found.append(None)
            continue
        request_hash, status, headers, body = row
        if request_hash != claim.request_hash:
            raise Conflict(
                f"the Idempotency-Key {claim.key!r} was used for a different request:"
                " take a new one"
            )
        found.append(Reply(status, headers, _unpacked(body)))
    return found


async def earlier(connection: AsyncConnection, claim: Claim) -> Reply | None:
    """Like `replies`, read now."""
    rows = await bulk.read(connection, [reading([claim])])
    return replies([claim], rows[KEPT])[0]


def keeping(kept: Sequence[tuple[Claim, Reply]]) -> Part:
    """Keeps replies, in the transaction of what they tell: neither is without the other."""
    return Part(
        "keep",
        _KEEP,
        (
            *_names([claim for claim, _ in kept]),
            [claim.request_hash for claim, _ in kept],
            [reply.status for _, reply in kept],
            [msgspec.json.encode(reply.headers).decode() for _, reply in kept],
            [_packed(reply.body) for _, reply in kept],
        ),
    )


async def keep(connection: AsyncConnection, claim: Claim, reply: Reply) -> None:
    """Like `keeping`, at once."""
    await bulk.write(connection, (), [keeping([(claim, reply)])])


def _names(claims: Sequence[Claim]) -> tuple[list[UUID], list[str]]:
    return [claim.token_id for claim in claims], [claim.key for claim in claims]


def _packed(body: bytes) -> bytes:
    if len(body) < _WORTH_PACKING and not body.startswith(_PACKED):
        return body
    return zlib.compress(body, _ZLIB_LEVEL)


def _unpacked(stored: bytes) -> bytes:
    return zlib.decompress(stored) if stored.startswith(_PACKED) else stored


async def forget_old(connection: AsyncConnection) -> int:
    """Delete the replies that are past their lifetime; how many."""
    await connection.execute(text("SET LOCAL statement_timeout = '60s'"))
    table = idempotency_keys
    expired = delete(table).where(table.c.created_at <= func.now() - LIFETIME)
    return (await connection.execute(expired)).rowcount
