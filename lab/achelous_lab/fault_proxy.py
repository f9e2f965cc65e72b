"""Between a NATS server and a client: loses, repeats and reorders some of what the client gets.

What the client sends passes as it is, and so does all but messages on the subjects that are meant.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate
from typing import Final, Self
from urllib.parse import urlsplit

from achelous_lab.nats_frames import Frame, FrameSplitter

_CHUNK: Final = 256 * 1024
_LATE: Final = 8
"""A message that is late comes after at most so many others."""
_LATE_S: Final = 0.05
"""And at the latest after this, if no others come."""


class Fate(Enum):
    """What becomes of a message."""

    PASSED = "passed"
    DROPPED = "dropped"
    REPEATED = "repeated"
    LATE = "late"


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares of the messages, 0..1."""

    dropped: float = 0.0
    repeated: float = 0.0
    late: float = 0.0


class Meddler:
    """Decides about each frame of one connection."""

    def __init__(self, proxy: "FaultProxy") -> None:
        self._proxy = proxy
        self._held: list[tuple[int, bytes]] = []

    def through(self, frames: Iterable[Frame]) -> bytes:
        """What becomes of these frames, in the order in which it goes on."""
        return b"".join(part for frame in frames for part in self._one(frame))

    def release(self) -> bytes:
        """What was held back until now."""
        held, self._held = self._held, []
        return b"".join(data for _, data in held)

    def _one(self, frame: Frame) -> list[bytes]:
        if not frame.subject.startswith(self._proxy.subject):
            return [frame.data]
        due = [data for left, data in self._held if left <= 1]
        self._held = [(left - 1, data) for left, data in self._held if left > 1]
        match self._proxy.decide():
            case Fate.DROPPED:
                return due
            case Fate.LATE:
                self._held.append((self._proxy.dice.randint(1, _LATE), frame.data))
                return due
            case Fate.REPEATED:
                return [frame.data, frame.data, *due]
            case _:
                return [frame.data, *due]


class FaultProxy:
    """Listens at `url` while `serving`. Nothing goes wrong before `rates` says so.

    ``done``: messages on the subjects that are meant, by what became of them.
    """

    def __init__(self, url: str, subject: str, *, seed: int = 1) -> None:
        """``url``: the server's, with the user of who connects here; ``subject``: how subjects
        that are meant begin; ``seed``: of the dice, so that a run can be repeated."""
        self._server = urlsplit(url)
        self._port = 0
        self.subject = subject.encode()
        self.dice = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
        self.rates = Rates()
        self.done: Counter[Fate] = Counter()

    @property
    def url(self) -> str:
        """Where to connect, with the server's user and password."""
        user = self._server.netloc.rpartition("@")[0]
        return f"{self._server.scheme}://{user}@127.0.0.1:{self._port}"

    def decide(self) -> Fate:
        """What becomes of the next message."""
        roll, rates = self.dice.random(), self.rates
        shares = (rates.dropped, rates.repeated, rates.late)
        bounds = zip((Fate.DROPPED, Fate.REPEATED, Fate.LATE), accumulate(shares), strict=True)
        fate = next((fate for fate, bound in bounds if roll < bound), Fate.PASSED)
        self.done[fate] += 1
        return fate

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Self]:
        """Take connections; on exit they end."""
        connections: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._connection(reader, writer))
            connections.add(task)
            task.add_done_callback(connections.discard)

        server = await asyncio.start_server(connected, "127.0.0.1", self._port)
        self._port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in connections:
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's, until either side ends it."""
        try:
            to_server = await asyncio.open_connection(self._server.hostname, self._server.port)
        except OSError:  # as the client would have found
            writer.close()
            return
        ways = [
            asyncio.create_task(_copy(reader, to_server[1])),
            asyncio.create_task(self._meddle(to_server[0], writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, to_server[1]):
                end.close()

    async def _meddle(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        splitter, meddler = FrameSplitter(), Meddler(self)
        reading = asyncio.ensure_future(source.read(_CHUNK))
        try:
            while True:
                done, _ = await asyncio.wait([reading], timeout=_LATE_S)
                if not done:
                    sink.write(meddler.release())
                    continue
                chunk = reading.result()
                if not chunk:
                    return
                sink.write(meddler.through(splitter.feed(chunk)))
                await sink.drain()
                reading = asyncio.ensure_future(source.read(_CHUNK))
        finally:
            reading.cancel()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while chunk := await source.read(_CHUNK):
        sink.write(chunk)
        await sink.drain()
