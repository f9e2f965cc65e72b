"""An RSP requester that costs as little as it can: prepared bytes out, replies counted by size.

It speaks the bus's wire protocol on a socket of its own, because a client library would be what is
measured.
"""

import asyncio
import json
import secrets
import socket
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from achelous_shared import rsp, subjects
from achelous_shared.bus_roles import Role

_WINDOW_PART: Final = 4
_BUFFER: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Load:
    """What one requester did."""

    requests: int
    seconds: float
    cpu_seconds: float
    latencies_ms: tuple[float, ...]
    """Between sending a part of the window and having read its last reply."""


class Requester:
    """Keeps up to ``window`` requests of ``batch`` keys in flight on one connection."""

    def __init__(
        self, url: str, subject: str, keys: NDArray[np.uint8], vni: int, *, batch: int, window: int
    ) -> None:
        """``keys``: (n, 16), asked for in this order, again and again."""
        self._part = max(1, window // _WINDOW_PART)
        self._parts = max(1, window // self._part)
        inbox = f"{subjects.inbox(Role.VSWITCH)}.{secrets.token_hex(4)}"
        requests = _requests(f"PUB {subject} {inbox}", keys, vni, batch)
        self._blobs = [
            b"".join(requests[at : at + self._part])
            for at in range(0, len(requests) - self._part + 1, self._part)
        ]
        reply = rsp.HEADER_BYTES + batch * rsp.REPLY.itemsize
        self._reply = reply
        self._frame = len(f"MSG {inbox} 1 {reply}\r\n") + reply + 2
        self._socket = _connect(url, inbox)

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def check(self) -> None:
        """Ask the first part; raise unless each reply is whole and all have routes."""
        self._socket.sendall(self._blobs[0])
        data = b""
        while len(data) < self._part * self._frame:
            data += self._socket.recv(_BUFFER)
        for at in range(0, len(data), self._frame):
            reply = data[at + self._frame - self._reply - 2 : at + self._frame - 2]
            entries = rsp.decode(reply, rsp.MessageType.REPLY).entries
            if not (entries["type"] == rsp.ReplyType.ROUTE).all():
                raise AssertionError("a reply lacks routes")

    def run(self, seconds: float) -> Load:
        """Ask for so long, then read what is in flight."""
        buffer = bytearray(_BUFFER)
        part_bytes = self._part * self._frame
        sent_at: deque[float] = deque()
        latencies: list[float] = []
        begin, cpu = time.perf_counter(), time.thread_time()
        end = begin + seconds
        received = done = sent = 0
        while True:
            now = time.perf_counter()
            while len(sent_at) < self._parts and now < end:
                self._socket.sendall(self._blobs[sent % len(self._blobs)])
                sent_at.append(now)
                sent += 1
            if not sent_at:
                break
            count = self._socket.recv_into(buffer)
            if not count:
                raise ConnectionError("the bus closed the connection")
            received += count
            while sent_at and received >= (done + 1) * part_bytes:
                done += 1
                latencies.append((time.perf_counter() - sent_at.popleft()) * 1e3)
        took = time.perf_counter() - begin
        return Load(done * self._part, took, time.thread_time() - cpu, tuple(latencies))


@dataclass(frozen=True, slots=True)
class Asking:
    """What a requester asks one gateway. ``keys``: (n, 16)."""

    url: str
    subject: str
    keys: NDArray[np.uint8]
    vni: int
    batch: int
    window: int

    async def run(self, processes: ProcessPoolExecutor, seconds: float) -> Load:
        """In a process of its own: what it measures is not this one's doing."""
        return await asyncio.get_running_loop().run_in_executor(processes, _ask, self, seconds)


def _ask(asking: Asking, seconds: float) -> Load:
    requester = Requester(
        asking.url, asking.subject, asking.keys, asking.vni,
        batch=asking.batch, window=asking.window,
    )  # fmt: skip
    try:
        requester.check()
        return requester.run(seconds)
    finally:
        requester.close()


def _requests(publish: str, keys: NDArray[np.uint8], vni: int, batch: int) -> list[bytes]:
    frames = []
    for number, at in enumerate(range(0, len(keys) - batch + 1, batch)):
        entries = rsp.requests(np.full(batch, vni), keys[at : at + batch])
        payload = rsp.encode(rsp.MessageType.REQUEST, number, entries)
        frames.append(b"%s %d\r\n%s\r\n" % (publish.encode(), len(payload), payload))
    return frames


def _connect(url: str, inbox: str) -> socket.socket:
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while not connection.recv(65536).endswith(b"\r\n"):  # INFO
        pass
    options = {"user": parts.username, "pass": parts.password, "verbose": False, "headers": False}
    hello = f"CONNECT {json.dumps(options)}\r\nSUB {inbox} 1\r\nPING\r\n"
    connection.sendall(hello.encode())
    if connection.recv(65536) != b"PONG\r\n":
        raise ConnectionError("the bus refused the requester")
    return connection
