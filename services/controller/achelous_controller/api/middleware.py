"""What every request passes through: metrics, problems, size, token; then a way to its answer."""

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from achelous_controller.api import whole_replies
from achelous_controller.api.problems import respond
from achelous_controller.domain.errors import Unauthenticated
from achelous_controller.domain.principal import Principal
from achelous_controller.store import projects
from achelous_controller.store.database import Database
from achelous_controller.store.gathering import Gatherer
from achelous_controller.store.projects import REMEMBERED_S
from achelous_shared.telemetry import LATENCY_BUCKETS_S, latency_buckets

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
_PROTECTED: Final = "/v1/"
_TOKENS: Final = 1000
"""Of one query: requests that come while one is under way share the next."""
_REMEMBERED: Final = 10_000
"""Tokens at most; with more of them in use all are looked up more often."""
_NOBODY: Final = (None, 0.0)

Headers = Mapping[bytes, bytes]
"""By lower-case name; of a header that is there several times, the first."""


class Body:
    """The body of a request: it may be read whole, and then once more by who answers.

    Reading raises HTTPException beyond `MAX_BODY_BYTES`, announced or not.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._size = 0
        self._read: list[Message] = []

    async def whole(self) -> bytes:
        """All of it; the last message may say that the client is gone."""
        messages = [await self._next()]
        while messages[-1].get("more_body"):
            messages.append(await self._next())
        self._read = messages
        return b"".join([message.get("body", b"") for message in messages])

    async def __call__(self) -> Message:
        """The ASGI application's receive."""
        return self._read.pop(0) if self._read else await self._next()

    async def _next(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size > MAX_BODY_BYTES:
            raise _too_large()
        return message


class Shortcut(Protocol):
    """Answers some requests at once; None: another way has to be taken."""

    async def answer(self, scope: Scope, headers: Headers, body: Body) -> Response | None: ...


class Front:
    """In front of the application: no request passes a layer of its framework that needs none."""

    def __init__(
        self, app: ASGIApp, shortcut: Shortcut, database: Database, registry: CollectorRegistry
    ) -> None:
        self._app = app
        self._shortcut = shortcut
        self._tokens = Tokens(database)
        self._metrics = Metrics(registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        send_whole = whole_replies.taken_from(scope)
        scope.setdefault("state", {})["accepted_at"] = datetime.now(UTC)
        body, status = Body(receive), 500
        try:
            response = await self._answer(scope, body)
            if response is not None:
                status = response.status_code
                if send_whole is None or not send_whole(response):
                    await response(scope, receive, send)
                return

            async def observed(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            await self._app(scope, body, observed)
        finally:
            self._metrics.count(scope, status, time.perf_counter() - started)

    async def _answer(self, scope: Scope, body: Body) -> Response | None:
        """The reply by the shortcut, or to what is refused; None: the application's to give."""
        try:
            headers = dict(reversed(scope["headers"]))
            _must_fit(headers.get(b"content-length", b"0"))
            if not scope["path"].startswith(_PROTECTED):
                return None
            scope["state"]["principal"] = await self._tokens.holder(headers.get(b"authorization"))
            return await self._shortcut.answer(scope, headers, body)
        except Exception as error:
            return respond(Request(scope), error)


@dataclass(slots=True)
class _Answered:
    """Requests of one method, route and status. ``times``: how many are in each bucket."""

    requests: int = 0
    seconds: float = 0.0
    times: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS_S) + 1))


class Metrics(Collector):
    """Counts requests by method, route template and status, and times them.

    The library's own counters take a lock and a look-up each, several for every request.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._answered: dict[tuple[str, str, int], _Answered] = defaultdict(_Answered)
        registry.register(self)

    def count(self, scope: Scope, status: int, seconds: float) -> None:
        """Note a request that was answered."""
        # the template, or one word for all that is no route: what clients invent is no label
        route = getattr(scope.get("route"), "path", "none")
        answered = self._answered[scope["method"], route, status]
        answered.requests += 1
        answered.seconds += seconds
        answered.times[bisect_left(LATENCY_BUCKETS_S, seconds)] += 1

    def collect(self) -> Iterator[Metric]:
        """What was counted so far."""
        labels = ["method", "route"]
        requests = CounterMetricFamily(
            "http_requests", "Requests answered", labels=[*labels, "status"]
        )
        seconds = HistogramMetricFamily("http_request_seconds", "Time to answer", labels=labels)
        by_route: dict[tuple[str, str], list[_Answered]] = defaultdict(list)
        for (method, route, status), answered in self._answered.items():
            requests.add_metric([method, route, str(status)], answered.requests)
            by_route[method, route].append(answered)
        for names, all_of_it in by_route.items():
            counts = map(sum, zip(*(each.times for each in all_of_it), strict=True))
            total = sum(each.seconds for each in all_of_it)
            seconds.add_metric(names, latency_buckets(counts), sum_value=total)
        yield requests
        yield seconds


class Problems:
    """Around the routes: turns whatever goes wrong in them into a problem document."""

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


def _must_fit(announced: bytes) -> None:
    if not announced.isdigit() or int(announced) > MAX_BODY_BYTES:
        raise _too_large()


def _too_large() -> HTTPException:
    return HTTPException(413, f"the body has more than {MAX_BODY_BYTES} bytes")


class Tokens:
    """Finds out who asks, before anything is read of what they ask.

    What the database says of a token is good for `REMEMBERED_S`, counted from before it was asked.
    Whoever revokes one lets more time pass before they say that it is done (`projects.forgotten`).
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asking: Gatherer[str, Principal | None] = Gatherer(self._ask, _TOKENS)
        self._known: dict[bytes, tuple[Principal, float]] = {}
        """By the token's hash; until when, monotonic."""

    async def holder(self, authorization: bytes | None) -> Principal:
        """Who sent this header Authorization; raises `Unauthenticated`."""
        if authorization is None:
            raise Unauthenticated("send a token: Authorization: Bearer TOKEN")
        scheme, _, token = authorization.decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("the header Authorization has to be: Bearer TOKEN")
        token = token.strip()
        principal = self._remembered(token) or await self._asking.submit(token)
        if principal is None:
            raise Unauthenticated("this token is not known: it was revoked, or never made here")
        return principal

    def _remembered(self, token: str) -> Principal | None:
        principal, until = self._known.get(projects.token_hash(token), _NOBODY)
        return principal if time.monotonic() < until else None

    async def _ask(self, tokens: Sequence[str]) -> list[Principal | None]:
        # who waited for the query before this one mostly find that it has asked for their token
        found = {token: self._remembered(token) for token in tokens}
        if missing := [token for token, principal in found.items() if principal is None]:
            until = time.monotonic() + REMEMBERED_S
            async with self._database.driver() as driver:
                holders = await projects.principals(driver, missing)
            found |= holders
            if len(self._known) + len(holders) > _REMEMBERED:
                self._known.clear()
            for token, holder in holders.items():
                self._known[projects.token_hash(token)] = holder, until
        return [found[token] for token in tokens]
