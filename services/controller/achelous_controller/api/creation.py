"""POST: one transaction for what is made and for the reply that a repetition gets."""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Final

from fastapi import Depends, Header, Request
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from achelous_controller.api.context import Caller, Store
from achelous_controller.domain.errors import Invalid
from achelous_controller.domain.principal import Principal
from achelous_controller.store import idempotency
from achelous_controller.store.database import Database, First
from achelous_controller.store.idempotency import Claim, Reply

MAX_KEY: Final = 255
KEY_PATTERN: Final = r"^[!-~]+$"

Work = Callable[[AsyncConnection], Awaitable[Response]]
"""Makes something in a transaction and says what to reply."""


class Creation:
    """Carries out a POST request once, however often it is sent with the same key."""

    def __init__(
        self, database: Database, caller: Principal, key: str | None, request_hash: bytes
    ) -> None:
        self._database = database
        self._caller = caller
        self._key = key
        self._request_hash = request_hash

    @property
    def claim(self) -> Claim | None:
        """What the request's key stands for, if it has one."""
        if self._key is None:
            return None
        return Claim(self._caller.token_id, self._key, self._request_hash)

    async def run(self, work: Work) -> Response:
        """Do the work, or repeat the reply of the time when it was done."""
        return await carry_out(self._database, self.claim, work)

    async def run_secret(self, work: Work) -> Response:
        """Like `run` for a reply that must not be stored, and therefore cannot be repeated."""
        if self._key is not None:
            raise Invalid.field(
                "Idempotency-Key",
                self._key,
                "a token's secret is shown once and not stored: leave the key out here",
            )
        return await self.run(work)


async def carry_out(database: Database, claim: Claim | None, work: Work, *first: First) -> Response:
    """Do the work in a transaction, or repeat the reply of the time when it was done.

    ``first``: see `Database.write`.
    """
    if claim is None:
        async with database.write(*first) as connection:
            return await work(connection)
    async with database.write(*idempotency.locking([claim]), *first) as connection:
        earlier = await idempotency.earlier(connection, claim)
        if earlier is not None:
            return response_of(earlier)
        response = await work(connection)
        await idempotency.keep(connection, claim, reply_of(response))
        return response


def reply_of(response: Response) -> Reply:
    """What is kept of a response."""
    return Reply(response.status_code, dict(response.headers), bytes(response.body))


def response_of(reply: Reply) -> Response:
    """What was kept, again."""
    return Response(reply.body, reply.status, reply.headers)


def request_hash(method: str, path: str, body: bytes) -> bytes:
    """What tells a request from others with the same key."""
    return hashlib.sha256(f"{method} {path}\n".encode() + body).digest()


async def _creation(
    request: Request,
    database: Store,
    caller: Caller,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=MAX_KEY,
            pattern=KEY_PATTERN,
            description="Any text of your own: the same request with the same key is carried out"
            " once, and within 24 hours answered with the same reply",
        ),
    ] = None,
) -> Creation:
    told_apart = b""
    if idempotency_key is not None:
        told_apart = request_hash(request.method, request.url.path, await request.body())
    return Creation(database, caller, idempotency_key, told_apart)


Post = Annotated[Creation, Depends(_creation)]
