"""Traffic between guests whose content is checked, and the offloads of their devices."""

import asyncio
import os
import socket
from hashlib import sha256
from typing import Final

from achelous_lab.netns.guest import Guest
from achelous_lab.netns.namespace import Namespace
from achelous_lab.process import run

OFFLOADS: Final = ("rx", "tx", "tso", "gso", "gro")
STREAM_PORT: Final = 7100
DATAGRAM_PORT: Final = 7200
_CHUNK: Final = 1 << 16


async def set_offloads(namespace: Namespace, device: str, state: str) -> None:
    """Checksums, segmentation and receive offload of a device: `on` or `off`."""
    settings = [word for name in OFFLOADS for word in (name, state)]
    await run(["ethtool", "-K", device, *settings], netns=namespace.name, timeout=5)


def family_of(ip: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


async def transfer(
    client: Guest, server: Guest, ip: str, *, size: int = 4 << 20, port: int = STREAM_PORT
) -> None:
    """`size` random bytes by one TCP connection to the server's address and back again; raises
    AssertionError if they are not the same, TimeoutError after 30 s."""
    data = os.urandom(size)
    async with asyncio.timeout(30):
        loop = asyncio.get_running_loop()
        with await server.namespace.socket(socket.SOCK_STREAM, family_of(ip)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((ip, port))
            listener.listen()
            with await client.namespace.socket(socket.SOCK_STREAM, family_of(ip)) as near:
                await loop.sock_connect(near, (ip, port))
                far, _ = await loop.sock_accept(listener)
                with far:
                    _, there = await asyncio.gather(loop.sock_sendall(near, data), _read(far, size))
                    _, back = await asyncio.gather(loop.sock_sendall(far, there), _read(near, size))
    assert sha256(back).digest() == sha256(data).digest()


async def _read(stream: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes; raises EOFError if there are fewer."""
    loop, parts, left = asyncio.get_running_loop(), [], size
    while left:
        part = await loop.sock_recv(stream, min(left, _CHUNK))
        if not part:
            raise EOFError(f"{left} of {size} bytes are missing")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


class Datagrams:
    """A socket of each of two guests, the client's being connected to the server's."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near, self.far = near, far

    @classmethod
    async def open(
        cls, client: Guest, server: Guest, ip: str, port: int = DATAGRAM_PORT
    ) -> "Datagrams":
        """To the server's address and port; the caller closes them."""
        far = await server.namespace.socket(socket.SOCK_DGRAM, family_of(ip))
        far.bind((ip, port))
        near = await client.namespace.socket(socket.SOCK_DGRAM, family_of(ip))
        near.connect((ip, port))
        return cls(near, far)

    async def carry(self, size: int, timeout: float = 5.0) -> None:
        """One datagram of random bytes to the server and back, the same at each end."""
        data, loop = os.urandom(size), asyncio.get_running_loop()
        async with asyncio.timeout(timeout):
            await loop.sock_sendall(self.near, data)
            there, sender = await loop.sock_recvfrom(self.far, 1 << 16)
            await loop.sock_sendto(self.far, there, sender)
            assert await loop.sock_recv(self.near, 1 << 16) == data

    def close(self) -> None:
        self.near.close()
        self.far.close()

    def __enter__(self) -> "Datagrams":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
