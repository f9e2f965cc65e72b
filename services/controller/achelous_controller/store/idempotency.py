"""Replies to POST requests, kept so that a repeated one is answered and not carried out again."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Text, Uuid, bindparam, delete, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import LargeBinary, SmallInteger

from achelous_controller.domain.errors import Conflict
from achelous_controller.store.schema import idempotency_keys

LIFETIME: Final = timedelta(hours=24)
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


_WANTED: Final = (
    bindparam("tokens", type_=ARRAY(Uuid)),
    bindparam("keys", type_=ARRAY(Text)),
)
_TAKE: Final = text("""
    SELECT pg_try_advisory_xact_lock(hashtextextended(concat(w.token_id, '/', w.key), 0)) AS ours
    FROM unnest(:tokens, :keys) WITH ORDINALITY AS w (token_id, key, place)
    ORDER BY place
""").bindparams(*_WANTED)
_KEPT: Final = (
    text("""
    SELECT token_id, key, request_hash, status, headers, body FROM idempotency_keys
    WHERE token_id = ANY(:tokens) AND key = ANY(:keys)
        AND created_at > now() - CAST(:lifetime AS interval)
""")
    .bindparams(*_WANTED, lifetime=LIFETIME)
    .columns(headers=JSONB)
)
_KEEP: Final = text("""
    INSERT INTO idempotency_keys (token_id, key, request_hash, status, headers, body, created_at)
    SELECT *, now() FROM unnest(:tokens, :keys, :hashes, :statuses, :headers, :bodies)
    ON CONFLICT (token_id, key) DO UPDATE
    SET request_hash = excluded.request_hash, status = excluded.status,
        headers = excluded.headers, body = excluded.body, created_at = excluded.created_at
""").bindparams(
    *_WANTED,
    bindparam("hashes", type_=ARRAY(LargeBinary)),
    bindparam("statuses", type_=ARRAY(SmallInteger)),
    bindparam("headers", type_=ARRAY(JSONB)),
    bindparam("bodies", type_=ARRAY(LargeBinary)),
)


async def take(connection: AsyncConnection, claims: Sequence[Claim]) -> list[Reply | None]:
    """The reply that each request had, or None: it is new, and this transaction does it.

    The claims are of different keys. Raises `Conflict` while another transaction carries one out,
    and when a key was used for a different request.
    """
    names = _names(claims)
    locked = (await connection.execute(_TAKE, names)).scalars().all()
    for claim, ours in zip(claims, locked, strict=True):
        if not ours:
            raise claim.busy()
    kept = {(row.token_id, row.key): row for row in await connection.execute(_KEPT, names)}
    replies: list[Reply | None] = []
    for claim in claims:
        row = kept.get((claim.token_id, claim.key))
        if row is not None and row.request_hash != claim.request_hash:
            raise Conflict(
                f"the Idempotency-Key {claim.key!r} was used for a different request:"
                " take a new one"
            )
        replies.append(Reply(row.status, row.headers, _unpacked(row.body)) if row else None)
    return replies


async def keep(connection: AsyncConnection, replies: Sequence[tuple[Claim, Reply]]) -> None:
    """Keep replies, in the transaction of what they tell: neither is without the other."""
    values = {
        "hashes": [claim.request_hash for claim, _ in replies],
        "statuses": [reply.status for _, reply in replies],
        "headers": [reply.headers for _, reply in replies],
        "bodies": [_packed(reply.body) for _, reply in replies],
    }
    await connection.execute(_KEEP, values | _names([claim for claim, _ in replies]))


def _names(claims: Sequence[Claim]) -> dict[str, list[object]]:
    return {
        "tokens": [claim.token_id for claim in claims],
        "keys": [claim.key for claim in claims],
    }


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
