"""An HTTP client that costs as little as it can: prepared bytes out, replies by length.

It runs in a process of its own, so that what it measures is not its caller's doing.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, cast
from urllib.parse import urlsplit

import uvloop

_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent; ``body`` is JSON, or empty."""

    method: str
    path: str
    body: bytes = b""


@dataclass(slots=True)
class Outcome:
    """What came back. Latencies in ms, in the order in which replies came."""

    began: float = 0.0
    """By `time.perf_counter`, which all processes of a machine share."""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    """The first id of each reply that has one."""
    refusal: str = ""
    """The first reply that was no success."""


def run(urls: list[str], token: str, requests: list[Request], connections: int) -> Outcome:
    """Send all requests, each connection the next one as soon as it has its reply."""
    return uvloop.run(_run(urls, token, requests, connections))


async def _run(urls: list[str], token: str, requests: list[Request], connections: int) -> Outcome:
    outcome = Outcome()
    pending = iter(requests)
    opened = [await _connect(urls[n % len(urls)], token) for n in range(connections)]
    outcome.began, cpu = time.perf_counter(), time.process_time()
    async with asyncio.timeout(_TIMEOUT_S), asyncio.TaskGroup() as group:
        for connection in opened:
            group.create_task(_drain(connection, pending, outcome))
    outcome.seconds = time.perf_counter() - outcome.began
    outcome.cpu_seconds = time.process_time() - cpu
    for connection in opened:
        connection.close()
    return outcome


async def _drain(connection: "_Connection", pending: Iterator[Request], outcome: Outcome) -> None:
    for request in pending:
        begin = time.perf_counter()
        status, body = await connection.exchange(request)
        outcome.latencies_ms.append((time.perf_counter() - begin) * 1e3)
        outcome.statuses[status] = outcome.statuses.get(status, 0) + 1
        if status >= 300 and not outcome.refusal:
            outcome.refusal = body[:500].decode(errors="replace")
        at = body.find(b'"id":"', 0, 64)
        if at >= 0:
            outcome.ids.append(body[at + 6 : at + 42].decode())


class _Connection(asyncio.Protocol):
    """One request at a time on one connection."""

    def __init__(self, host: str, token: str) -> None:
        self._head = f"HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        self._transport: asyncio.Transport | None = None
        self._data = bytearray()
        self._reply: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass of it

    def connection_lost(self, exc: Exception | None) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(ConnectionError(f"the connection ended: {exc}"))

    async def exchange(self, request: Request) -> tuple[int, bytes]:
        """Status and body of the reply."""
        assert self._transport is not None
        head = f"{request.method} {request.path} {self._head}"
        if request.body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(request.body)}\r\n"
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(f"{head}\r\n".encode() + request.body)
        return await self._reply

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0 or self._reply is None:
            return
        head = bytes(self._data[:end]).lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._data) < end + 4 + length:
            return
        body = bytes(self._data[end + 4 : end + 4 + length])
        self._data.clear()
        self._reply.set_result((int(head[9:12]), body))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def _connect(url: str, token: str) -> _Connection:
    parts = urlsplit(url)

    def make() -> _Connection:
        return _Connection(parts.netloc, token)

    _, connection = await asyncio.get_running_loop().create_connection(
        make, parts.hostname or "", parts.port or 80
    )
    return connection
