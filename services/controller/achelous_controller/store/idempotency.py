"""Replies to POST requests, kept so that a repeated one is answered and not carried out again."""

import zlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.errors import Conflict
from achelous_controller.store.schema import idempotency_keys

LIFETIME: Final = timedelta(hours=24)
_ZLIB_LEVEL: Final = 1  # replies to batches have megabytes, and repeat themselves


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

    async def take(self, connection: AsyncConnection) -> Reply | None:
        """The reply that this request had, or None: it is new, and this transaction does it.

        Raises `Conflict` while another transaction carries it out, and when the key was used for a
        different request.
        """
        lock = func.pg_try_advisory_xact_lock(
            func.hashtextextended(f"{self.token_id}/{self.key}", 0)
        )
        if not (await connection.execute(select(lock))).scalar_one():
            raise self.busy()
        table = idempotency_keys
        row = (
            await connection.execute(
                select(table).where(
                    table.c.token_id == self.token_id,
                    table.c.key == self.key,
                    table.c.created_at > func.now() - LIFETIME,
                )
            )
        ).one_or_none()
        if row is None:
            return None
        if row.request_hash != self.request_hash:
            raise Conflict(
                f"the Idempotency-Key {self.key!r} was used for a different request: take a new one"
            )
        return Reply(row.status, row.headers, zlib.decompress(row.body))

    async def keep(self, connection: AsyncConnection, reply: Reply) -> None:
        """Keep a reply, in the transaction of what it tells: neither is without the other."""
        values = {
            "request_hash": self.request_hash,
            "status": reply.status,
            "headers": reply.headers,
            "body": zlib.compress(reply.body, _ZLIB_LEVEL),
            "created_at": func.now(),
        }
        statement = insert(idempotency_keys).values(token_id=self.token_id, key=self.key, **values)
        await connection.execute(
            statement.on_conflict_do_update(index_elements=["token_id", "key"], set_=values)
        )


async def forget_old(connection: AsyncConnection) -> int:
    """Delete the replies that are past their lifetime; how many."""
    await connection.execute(text("SET LOCAL statement_timeout = '60s'"))
    table = idempotency_keys
    expired = delete(table).where(table.c.created_at <= func.now() - LIFETIME)
    return (await connection.execute(expired)).rowcount
