"""POST: one transaction for what is made and for the reply that a repetition gets."""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Header, Request
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from achelous_controller.api.context import Caller, Store
from achelous_controller.domain.errors import Invalid
from achelous_controller.domain.principal import Principal
from achelous_controller.store.database import Database
from achelous_controller.store.idempotency import Claim, Reply

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
        claim = self.claim
        async with self._database.write() as connection:
            if claim is None:
                return await work(connection)
            earlier = await claim.take(connection)
            if earlier is not None:
                return Response(earlier.body, earlier.status, earlier.headers)
            response = await work(connection)
            await claim.keep(connection, reply_of(response))
            return response

    async def run_secret(self, work: Work) -> Response:
        """Like `run` for a reply that must not be stored, and therefore cannot be repeated."""
        if self._key is not None:
            raise Invalid.field(
                "Idempotency-Key",
                self._key,
                "a token's secret is shown once and not stored: leave the key out here",
            )
        return await self.run(work)


def reply_of(response: Response) -> Reply:
    """What is kept of a response."""
    return Reply(response.status_code, dict(response.headers), bytes(response.body))


async def _creation(
    request: Request,
    database: Store,
    caller: Caller,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern=r"^[!-~]+$",
            description="Any text of your own: the same request with the same key is carried out"
            " once, and within 24 hours answered with the same reply",
        ),
    ] = None,
) -> Creation:
    digest = hashlib.sha256(f"{request.method} {request.url.path}\n".encode())
    digest.update(await request.body())
    return Creation(database, caller, idempotency_key, digest.digest())


Post = Annotated[Creation, Depends(_creation)]
