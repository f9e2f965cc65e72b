"""One connection to a controller, HTTP/1.1, with as little work per request as there can be."""

import asyncio
from typing import Final, cast

_TIMEOUT_S: Final = 120.0
_LOOK_S: Final = 5.0
"""How often it is looked whether a reply is overdue: a timer for each request would cost more."""
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"\r\ncontent-length:"


class Connection(asyncio.Protocol):
    """One request at a time. Bodies have a length: the controller never sends them in chunks."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.open = True
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._reply: asyncio.Future[tuple[int, bytes]] | None = None
        self._parts: list[bytes] = []
        self._have = 0
        self._wanted = 0
        """Bytes of the reply, once its head is there."""
        self._asked_at = 0.0
        self._looking = self._loop.call_later(_LOOK_S, self._look)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass of it

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.open = False
        self._looking.cancel()
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(ConnectionError(f"{self.url} closed the connection: {exc}"))

    async def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the reply. Raises OSError, after two minutes too."""
        if not self.open:
            raise ConnectionError(f"{self.url} has closed the connection")
        self._reply = self._loop.create_future()
        self._asked_at = self._loop.time()
        try:
            self._transport.write(request)
            return await self._reply
        finally:
            self._reply = None

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._parts.append(data)
        self._have += len(data)
        if self._have < self._wanted:
            return
        if len(self._parts) > 1:
            data = b"".join(self._parts)
            self._parts = [data]
        end = data.find(_HEAD_END)
        if end < 0:
            return
        body = end + len(_HEAD_END)
        self._wanted = body + _length(data[:body].lower())
        if self._have < self._wanted:
            return
        self._parts, self._have, self._wanted = [], 0, 0
        if self._reply is None or self._reply.done():
            self.close()  # nobody asked, or nobody waits any more
            return
        self._reply.set_result((int(data[9:12]), data[body:]))

    def _look(self) -> None:
        if self._reply is not None and self._loop.time() - self._asked_at > _TIMEOUT_S:
            self.close()
        else:
            self._looking = self._loop.call_later(_LOOK_S, self._look)

    def close(self) -> None:
        """End it; who waits for a reply is told."""
        self.open = False
        self._looking.cancel()
        self._transport.abort()


def _length(head: bytes) -> int:
    at = head.find(_LENGTH)
    return 0 if at < 0 else int(head[at + len(_LENGTH) : head.find(b"\r", at + 2)])
