"""The REST API at a high rate: HTTP/1.1 on connections that stay open, little work per request."""

import asyncio
import itertools
import secrets
import ssl
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import msgspec

from achelous_lab.api import ApiRefused, Object
from achelous_loadgen.connection import Connection

_CONNECT_S: Final = 10.0
_AGAIN_S: Final = 0.05
_RETRY_FOR_S: Final = 60.0


class ApiGone(ConnectionError):
    """No controller answered, however often it was asked."""


class Reply(msgspec.Struct, frozen=True, gc=False):
    """Of 2xx, or of 404 to DELETE."""

    status: int
    body: bytes

    def json(self) -> Object:
        """The body's object."""
        found: Object = msgspec.json.decode(self.body) if self.body else {}
        return found


class Http:
    """One token's view of the controllers at ``urls()``; the next is tried when one is gone.

    A request is repeated until it is answered: POSTs carry an idempotency key, and a DELETE of what
    is gone already says so. All go to one controller as long as it is there: changes that come
    together share transactions.
    """

    def __init__(self, urls: Callable[[], Sequence[str]], token: str, connections: int) -> None:
        self._urls = urls
        self._idle: list[Connection] = []
        self._room = asyncio.Semaphore(connections)
        self._head = (
            f" HTTP/1.1\r\nHost: achelous\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        )
        self._key = f"\r\nIdempotency-Key: {secrets.token_hex(8)}-"
        self._numbers = itertools.count()
        self.preferred: str | None = None
        """The controller that is asked as long as it answers."""

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
            if answer is not None and answer[0] < 500:
                break
            if (seconds := time.perf_counter() - started) > _RETRY_FOR_S:
                raise ApiGone(f"{method} {path}: no answer but {answer} in {seconds:.0f} s")
            await asyncio.sleep(_AGAIN_S)
        status, content = answer
        if status >= 400 and (method, status) != ("DELETE", 404):
            raise ApiRefused(method, path, status, msgspec.json.decode(content))
        return Reply(status, content)

    async def post(self, path: str, body: Any) -> Object:
        """What was made."""
        return (await self.call("POST", path, msgspec.json.encode(body))).json()

    async def get(self, path: str) -> Object:
        """What is there."""
        return (await self.call("GET", path)).json()

    async def outside(self, path: str, url: str | None = None) -> bytes | None:
        """What one attempt at a ``path`` outside the API brings; None unless it is 200.

        ``url``: of one controller; None: of the one that would be asked anyway.
        """
        request = f"GET {path} HTTP/1.1\r\nHost: achelous\r\n\r\n".encode()
        try:
            connection = await (self._connect() if url is None else _open(url))
        except OSError:
            return None
        try:
            status, content = await connection.exchange(request)
        except OSError:
            return None
        finally:
            connection.close()
        return content if status == 200 else None

    async def _attempt(self, request: bytes) -> tuple[int, bytes] | None:
        connection: Connection | None = None
        try:
            connection = self._resting() or await self._connect()
            answer = await connection.exchange(request)
        except OSError:
            if connection is not None:
                connection.close()
            return None
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        self._idle.append(connection)
        return answer

    def _resting(self) -> Connection | None:
        """An open connection that waits for work; those to controllers out of favour go."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.open:
                continue
            if self.preferred is None or connection.url == self.preferred:
                return connection
            connection.close()
        return None

    async def _connect(self) -> Connection:
        failed: OSError = ApiGone("no controller listens")
        for url in sorted(self._urls(), key=lambda url: url != self.preferred):
            try:
                connection = await _open(url)
            except OSError as error:
                failed = error
            else:
                if url != self.preferred:
                    self.preferred = None
                return connection
        raise failed

    def _request(self, method: str, path: str, body: bytes) -> bytes:
        key = ""
        if method == "POST" and path != "/tokens":
            key = f"{self._key}{next(self._numbers)}"
        return f"{method} /v1{path}{self._head}{len(body)}{key}\r\n\r\n".encode() + body


async def _open(url: str) -> Connection:
    """Raises OSError, as which a certificate that is not to be trusted counts too."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    async with asyncio.timeout(_CONNECT_S):
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(url),
            parts.hostname or "",
            parts.port or (443 if secure else 80),
            ssl=ssl.create_default_context() if secure else None,
        )
    return connection
