"""The REST API at a high rate: HTTP/1.1 on connections that stay open, little work per request."""

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec

from achelous_lab.api import ApiRefused, Object

_TIMEOUT_S: Final = 120.0
_AGAIN_S: Final = 0.05
_RETRY_FOR_S: Final = 60.0


class ApiGone(ConnectionError):
    """No controller answered, however often it was asked."""


@dataclass(frozen=True, slots=True)
class Reply:
    """``seconds``: from the call to the last byte, with all attempts."""

    status: int
    body: bytes
    seconds: float

    def json(self) -> Object:
        """The body's object."""
        found: Object = msgspec.json.decode(self.body) if self.body else {}
        return found


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def exchange(self, request: bytes) -> tuple[int, bytes]:
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return int(head[9:12]), await self._reader.readexactly(length)

    def close(self) -> None:
        self._writer.close()


class Http:
    """One token's view of the controllers at ``urls()``; the next is tried when one is gone.

    A request is repeated until it is answered: POSTs carry an idempotency key, and a DELETE of what
    is gone already says so.
    """

    def __init__(self, urls: Callable[[], Sequence[str]], token: str, connections: int) -> None:
        self._urls = urls
        self._token = token
        self._idle: list[_Connection] = []
        self._room = asyncio.Semaphore(connections)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for connection in self._idle:
            connection.close()

    async def call(self, method: str, path: str, body: bytes = b"") -> Reply:
        """The reply of 2xx, or 404 to DELETE. Raises ApiRefused, ApiGone."""
        request = self._request(method, path, body)
        started = time.perf_counter()
        while True:
            async with self._room:
                answer = await self._attempt(request)
            seconds = time.perf_counter() - started
            if answer is not None and answer[0] < 500:
                break
            if seconds > _RETRY_FOR_S:
                raise ApiGone(f"{method} {path}: no answer but {answer} in {seconds:.0f} s")
            await asyncio.sleep(_AGAIN_S)
        status, content = answer
        if status >= 400 and (method, status) != ("DELETE", 404):
            raise ApiRefused(method, path, status, msgspec.json.decode(content))
        return Reply(status, content, seconds)

    async def post(self, path: str, body: Any) -> Object:
        """What was made."""
        return (await self.call("POST", path, msgspec.json.encode(body))).json()

    async def get(self, path: str) -> Object:
        """What is there."""
        return (await self.call("GET", path)).json()

    async def outside(self, path: str) -> bytes | None:
        """What one attempt at a ``path`` outside the API brings; None unless it is 200."""
        request = f"GET {path} HTTP/1.1\r\nHost: achelous\r\n\r\n".encode()
        answer = await self._attempt(request)
        return answer[1] if answer is not None and answer[0] == 200 else None

    async def _attempt(self, request: bytes) -> tuple[int, bytes] | None:
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                connection = self._idle.pop() if self._idle else await self._connect()
                answer = await connection.exchange(request)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            if connection is not None:
                connection.close()
            return None
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        self._idle.append(connection)
        return answer

    async def _connect(self) -> _Connection:
        failed: OSError = ApiGone("no controller listens")
        for url in self._urls():
            parts = urlsplit(url)
            secure = parts.scheme == "https"
            with suppress(ssl.SSLError):
                try:
                    return _Connection(
                        *await asyncio.open_connection(
                            parts.hostname,
                            parts.port or (443 if secure else 80),
                            ssl=ssl.create_default_context() if secure else None,
                        )
                    )
                except OSError as error:
                    failed = error
        raise failed

    def _request(self, method: str, path: str, body: bytes) -> bytes:
        head = (
            f"{method} /v1{path} HTTP/1.1\r\nHost: achelous\r\nAuthorization: Bearer {self._token}"
            f"\r\nContent-Length: {len(body)}\r\nContent-Type: application/json\r\n"
        )
        if method == "POST" and path != "/tokens":
            head += f"Idempotency-Key: {uuid4()}\r\n"
        return f"{head}\r\n".encode() + body
