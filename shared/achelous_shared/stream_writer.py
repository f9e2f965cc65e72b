"""Appends to streams, many messages at once, on a connection of its own.

Messages of calls that come together are one write, and their acknowledgements come on one
subscription, each on the message's number. A client that asks for each one by itself makes a
subject, a future and a timer for it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from achelous_shared import nats_wire
from achelous_shared.nats_wire import Received, WireError
from achelous_shared.responder import Responder, connected, serve

log = logging.getLogger(__name__)

_RETRY_S: Final = 0.1
_MAX_ACK: Final = 4096
"""Bytes of an acknowledgement."""


@dataclass(frozen=True, slots=True)
class Append:
    """A message for the stream that has this subject."""

    subject: str
    data: bytes
    message_id: str | None = None
    """The stream takes one message of an id within its duplicate window."""


class _Ack(msgspec.Struct):
    error: msgspec.Raw = msgspec.Raw()
    seq: int = 0


@dataclass(slots=True)
class _Batch:
    """Messages of one call: those numbered from ``first`` on."""

    first: int
    taken: list[bool]
    left: int
    done: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def settle(self, number: int, taken: bool) -> None:
        self.taken[number - self.first] = taken
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)


class StreamWriter:
    """Use `Bus.stream_writer`; somebody has to `run` it."""

    def __init__(
        self, server: Callable[[], tuple[str, int] | None], login: bytes, inbox: str
    ) -> None:
        """``login`` with headers, as of `nats_wire.connect`; ``inbox``: a subject of its own, on
        which it is answered."""
        self._server = server
        self._login = login
        self._inbox = f"{inbox}."
        self._connection: Responder | None = None
        self._next = 0
        self._waiting: dict[int, _Batch] = {}  # by number of message
        self._unsent: list[bytes] = []

    @property
    def connected(self) -> bool:
        """Whether a server is connected right now."""
        return self._connection is not None

    async def run(self) -> None:
        """Keep the connection until cancelled."""
        try:
            while True:
                if (server := self._server()) is not None:
                    try:
                        await self._serve(server)
                    except (OSError, TimeoutError, WireError) as error:
                        log.warning("bus: connecting for streams again: %r", error)
                await asyncio.sleep(_RETRY_S)
        finally:
            self._lose()

    async def _serve(self, server: tuple[str, int]) -> None:
        subject = f"{self._inbox}*"
        async with connected(
            server, self._login, subject, self._answered, max_payload=_MAX_ACK
        ) as connection:
            self._connection = connection
            try:
                await serve(connection)
            finally:
                self._lose()

    def _lose(self) -> None:
        """Nobody knows what became of what is under way."""
        self._connection = None
        self._unsent.clear()
        waiting, self._waiting = self._waiting, {}
        for number, batch in waiting.items():
            batch.settle(number, False)

    async def append(self, messages: Sequence[Append], *, timeout: float = 2.0) -> list[bool]:
        """Append all, in their order; of each whether its stream has it.

        Of those that were not acknowledged in time a stream may have some, or get them yet.
        """
        if self._connection is None or not messages:
            return [False] * len(messages)
        batch = self._begin(len(messages))
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._send)
        reply_to = self._inbox.encode()
        self._unsent += [
            nats_wire.request(
                one.subject.encode(), b"%b%d" % (reply_to, number), one.data, one.message_id
            )
            for number, one in enumerate(messages, batch.first)
        ]
        await self._settled(batch, timeout)
        return batch.taken

    def _send(self) -> None:
        """What all who run now have appended."""
        if self._connection is not None and self._unsent:
            self._connection.write(b"".join(self._unsent))
        self._unsent.clear()

    def _begin(self, count: int) -> _Batch:
        batch = _Batch(self._next, [False] * count, count)
        self._next += count
        self._waiting |= dict.fromkeys(range(batch.first, self._next), batch)
        return batch

    async def _settled(self, batch: _Batch, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await batch.done
        except TimeoutError:
            log.warning("bus: %d messages were not acknowledged in time", batch.left)
        finally:
            for number in range(batch.first, batch.first + len(batch.taken)) if batch.left else ():
                self._waiting.pop(number, None)

    def _answered(self, received: Received) -> tuple[()]:
        """Take acknowledgements. An empty one: there is no stream."""
        for subject, data in zip(received.subjects, received.payloads, strict=True):
            number = int(subject[len(self._inbox) :])
            if (batch := self._waiting.pop(number, None)) is None:
                continue  # its time was over
            batch.settle(number, _is_taken(data))
        return ()


_decode: Final = msgspec.json.Decoder(_Ack).decode


def _is_taken(data: bytes) -> bool:
    try:
        ack = _decode(data) if data else _Ack()
    except msgspec.DecodeError as error:
        log.warning("bus: no acknowledgement: %r, %s", data, error)
        return False
    if not ack.seq:
        log.warning("bus: a stream did not take a message: %s", bytes(ack.error) or "no stream")
    return bool(ack.seq)
