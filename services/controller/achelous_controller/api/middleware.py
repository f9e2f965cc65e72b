"""What every request passes through, outermost first: metrics, problems, size, token."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from achelous_controller.api.problems import respond
from achelous_controller.domain.errors import Unauthenticated
from achelous_controller.domain.principal import Principal
from achelous_controller.store import projects
from achelous_controller.store.database import Database
from achelous_controller.store.gathering import Gatherer
from achelous_shared.telemetry import LATENCY_BUCKETS_S

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
_PROTECTED: Final = "/v1/"
_TOKENS: Final = 1000
"""Of one query: requests that come while one is under way share the next."""


class Metrics:
    """Counts requests by method, route template and status, and times them."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        # one lookup in place of four; as bounded as the labels are
        self._of = cache(self._children)
        self._requests = Counter(
            "http_requests_total",
            "Requests answered",
            ["method", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "http_request_seconds",
            "Time to answer",
            ["method", "route"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})["accepted_at"] = datetime.now(UTC)
        started = time.perf_counter()
        status = 500

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            # the template, or one word for all that is no route: what clients invent is no label
            route = getattr(scope.get("route"), "path", "none")
            requests, seconds = self._of(scope["method"], route, status)
            requests.inc()
            seconds.observe(time.perf_counter() - started)

    def _children(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        return (
            self._requests.labels(method, route, status),
            self._seconds.labels(method, route),
        )


class Problems:
    """Turns whatever goes wrong further in into a problem document."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def observed(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except Exception as error:
            if started:
                raise
            await respond(Request(scope), error)(scope, receive, send)


class BodyLimit:
    """Refuses a body of more than `MAX_BODY_BYTES`, announced or not."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdigit() or int(announced) > MAX_BODY_BYTES:
            raise _too_large()
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY_BYTES:
                raise _too_large()
            return message

        await self._app(scope, counted, send)


def _too_large() -> HTTPException:
    return HTTPException(413, f"the body has more than {MAX_BODY_BYTES} bytes")


class Authentication:
    """Finds out who asks, before anything is read of what they ask."""

    def __init__(self, app: ASGIApp, database: Database) -> None:
        self._app = app
        self._database = database
        self._asking: Gatherer[str, Principal | None] = Gatherer(self._ask, _TOKENS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(_PROTECTED):
            header = Headers(scope=scope).get("authorization")
            scope["state"]["principal"] = await self._principal(header)
        await self._app(scope, receive, send)

    async def _principal(self, header: str | None) -> Principal:
        if header is None:
            raise Unauthenticated("send a token: Authorization: Bearer TOKEN")
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("the header Authorization has to be: Bearer TOKEN")
        principal = await self._asking.submit(token.strip())
        if principal is None:
            raise Unauthenticated("this token is not known: it was revoked, or never made here")
        return principal

    async def _ask(self, tokens: Sequence[str]) -> list[Principal | None]:
        async with self._database.glance() as connection:
            holders = await projects.principals(connection, set(tokens))
        return [holders.get(token) for token in tokens]
