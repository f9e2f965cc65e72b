"""Does a connection get through right now?"""

import asyncio
import contextlib
import secrets
import socket
from enum import Enum
from types import TracebackType
from typing import Self

from achelous_lab.netns.guest import Guest
from achelous_lab.waiting import wait_until


class Proto(Enum):
    """What to try: a handshake, or one datagram from client to server."""

    TCP = "tcp"
    UDP = "udp"


class ConnectionTester:
    """Tries connections from one guest to a port of another, where it listens itself.

    An async context manager; its sockets live in the guests' namespaces and are served here.
    """

    def __init__(self, client: Guest, server: Guest, proto: Proto, port: int) -> None:
        self._client = client
        self._server = server
        self._proto = proto
        self._port = port
        self._listener: socket.socket | None = None

    async def __aenter__(self) -> Self:
        kind = socket.SOCK_STREAM if self._proto is Proto.TCP else socket.SOCK_DGRAM
        self._listener = await self._server.namespace.socket(kind)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((str(self._server.ip), self._port))
        if self._proto is Proto.TCP:
            self._listener.listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._listener is not None:
            self._listener.close()

    async def check(self, timeout: float = 0.5) -> bool:
        """One new connection from a new port, or one datagram: whether it arrived in time."""
        attempt = self._connect if self._proto is Proto.TCP else self._send
        try:
            async with asyncio.timeout(timeout):
                await attempt()
        except (TimeoutError, OSError):
            return False
        return True

    async def wait_until(self, *, reachable: bool, timeout: float = 5.0) -> float:
        """Try until it gets through, or no longer does; returns after how many seconds."""

        async def as_wanted() -> bool:
            return await self.check() is reachable

        wanted = "reachable" if reachable else "unreachable"
        what = f"{self._server.name}:{self._port}/{self._proto.value} to be {wanted}"
        return await wait_until(as_wanted, f"{what} from {self._client.name}", timeout=timeout)

    @property
    def _address(self) -> tuple[str, int]:
        return str(self._server.ip), self._port

    async def _connect(self) -> None:
        assert self._listener is not None  # noqa: S101  __aenter__ comes first
        loop = asyncio.get_running_loop()
        with await self._client.namespace.socket(socket.SOCK_STREAM) as client:
            await loop.sock_connect(client, self._address)
            accepted, _ = await loop.sock_accept(self._listener)
            accepted.close()

    async def _send(self) -> None:
        assert self._listener is not None  # noqa: S101  __aenter__ comes first
        loop = asyncio.get_running_loop()
        token = secrets.token_bytes(16)
        with await self._client.namespace.socket(socket.SOCK_DGRAM) as client:
            client.connect(self._address)
            with contextlib.suppress(ConnectionRefusedError):
                client.send(token)
            while await loop.sock_recv(self._listener, 2048) != token:
                pass  # one that an earlier check had given up
