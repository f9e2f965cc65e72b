"""Replies in any pieces, and connections that end."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from achelous_loadgen.connection import Connection

REPLY = b"HTTP/1.1 201 Created\r\nServer: x\r\nContent-Length: 5\r\n\r\nhello"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"


@asynccontextmanager
async def served(*replies: Sequence[bytes]) -> AsyncIterator[Connection]:
    """A connection to a server that answers each request by one of the replies, in pieces; then
    it closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for pieces in replies:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        make: Callable[[], Connection] = lambda: Connection(f"http://127.0.0.1:{port}")  # noqa: E731
        _, connection = await asyncio.get_running_loop().create_connection(make, "127.0.0.1", port)
        try:
            yield connection
        finally:
            connection.close()


@pytest.mark.parametrize(
    "pieces",
    [[REPLY], [REPLY[:30], REPLY[30:]], [REPLY[:-2], REPLY[-2:]], [bytes([b]) for b in REPLY]],
    ids=["whole", "in its head", "in its body", "byte by byte"],
)
async def test_a_reply_may_come_in_any_pieces(pieces: list[bytes]) -> None:
    async with served(pieces, [EMPTY], pieces) as connection:
        assert await connection.exchange(b"GET /a\r\n\r\n") == (201, b"hello")
        assert await connection.exchange(b"GET /b\r\n\r\n") == (204, b"")
        assert await connection.exchange(b"GET /c\r\n\r\n") == (201, b"hello")


async def test_who_waits_when_the_server_closes_is_told() -> None:
    async with served([REPLY], [REPLY[:-1]]) as connection:
        await connection.exchange(b"GET /a\r\n\r\n")
        with pytest.raises(ConnectionError, match="closed"):
            await connection.exchange(b"GET /b\r\n\r\n")
        assert not connection.open
        with pytest.raises(ConnectionError):
            await connection.exchange(b"GET /c\r\n\r\n")
