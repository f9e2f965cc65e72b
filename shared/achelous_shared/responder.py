"""Takes messages in batches on a connection of its own: for RSP, where the rate is what counts.

Whatever one read of the socket brought is answered by one call and one write. Its own connection,
so that bulk on the bus's other one (snapshots, deltas) does not stand before it. Queues are TCP's:
while the server does not take the replies, no requests are read.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, cast

from achelous_shared import nats_wire
from achelous_shared.nats_wire import Received, Splitter

log = logging.getLogger(__name__)

_CONNECT_S: Final = 2.0
_PING_S: Final = 5.0
_WRITE_BUFFER: Final = 4 * 1024 * 1024

BatchAnswer = Callable[[Sequence[bytes]], Sequence[bytes]]
"""Takes the payloads of requests, returns those of their replies in the same order."""

Reaction = Callable[[Received], Sequence[tuple[bytes, bytes]]]
"""Takes messages, returns what is published upon them: (subject, payload) of each."""


class Refused(ConnectionError):
    """The server does not let us in, or says that it ends the connection."""


class Outlet:
    """Publishes on a responder's connection, in between, while there is one."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        """Where it goes: the responder's, unless the server does not take more now."""

    def publish(self, messages: Sequence[tuple[bytes, bytes]]) -> bool:
        """Send messages (see `nats_wire.publish`) at most once and by one write; False: nowhere."""
        if self.transport is None:
            return False
        if messages:
            self.transport.write(nats_wire.publish(messages))
        return True


class Responder(asyncio.Protocol):
    """One connection that listens on one subject. Use `connected`."""

    def __init__(
        self, login: bytes, subject: str, react: Reaction, outlet: Outlet, *, max_payload: int
    ) -> None:
        self._login = login
        self._subject = subject
        self._react = react
        self._outlet = outlet
        self._splitter = Splitter(max_payload)
        self._transport: asyncio.Transport
        self._heard = True
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the connection is; with the exception that ended it, if one did."""
        self.ready = asyncio.Event()
        """Set when it has logged in: from then on anything may be sent."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol. The server speaks first."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._outlet.transport = None
        if not self.ended.done():
            self.ended.set_exception(exc or Refused("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        try:
            self._take(self._splitter.feed(data))
        except Exception as error:
            if not self.ended.done():
                self.ended.set_exception(error)
            self.abort()

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._outlet.transport = None
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._outlet.transport = self._transport
        self._transport.resume_reading()

    def ping(self) -> bool:
        """Ask whether the server is still there; False if it did not say so since the last time."""
        heard, self._heard = self._heard, False
        self._transport.write(nats_wire.PING)
        return heard

    def write(self, data: bytes) -> None:
        """Send beside the reactions; what the server does not take at once is kept, so the caller
        waits for answers before it sends more."""
        self._transport.write(data)

    def abort(self) -> None:
        """End the connection at once."""
        self._outlet.transport = None
        self._transport.abort()

    def _take(self, received: Received) -> None:
        self._heard = True
        for line in received.lines:
            self._control(line)
        if received.payloads and (said := self._react(received)):
            self._transport.write(nats_wire.publish(said))

    def _control(self, line: bytes) -> None:
        word = line[:5].rstrip().upper()
        if word == b"PING":
            self._transport.write(nats_wire.PONG)
        elif word == b"INFO" and self._login:
            self._transport.write(self._login + nats_wire.subscribe(self._subject))
            self._login = b""
            self.ready.set()
            self._outlet.transport = self._transport
        elif word == b"-ERR":
            text = line[5:].decode(errors="replace")
            if "permissions violation for publish" not in text.lower():
                raise Refused(f"the server says {text}")
            log.warning("responder on %s: %s", self._subject, text)


def replies(answer: BatchAnswer) -> Reaction:
    """The reaction of a service: replies to those messages that want one."""

    def react(received: Received) -> list[tuple[bytes, bytes]]:
        answers = zip(received.replies_to, answer(received.payloads), strict=True)
        return [pair for pair in answers if pair[0]]

    return react


@asynccontextmanager
async def connected(
    server: tuple[str, int],
    login: bytes,
    subject: str,
    reaction: Reaction,
    *,
    max_payload: int,
    outlet: Outlet | None = None,
) -> AsyncIterator[Responder]:
    """A connection that reacts to ``subject``, logged in; ended on exit.

    ``server``: host and port; ``login``: as of `nats_wire.connect`; ``outlet`` leads to this
    connection meanwhile. Raises OSError or TimeoutError if there is none.
    """
    outlet = outlet or Outlet()
    async with asyncio.timeout(_CONNECT_S):
        _, responder = await asyncio.get_running_loop().create_connection(
            lambda: Responder(login, subject, reaction, outlet, max_payload=max_payload),
            *server,
        )
    try:
        async with asyncio.timeout(_CONNECT_S):
            await responder.ready.wait()
        yield responder
    finally:
        responder.abort()
        responder.ended.cancel()


async def serve(responder: Responder) -> None:
    """Until the connection ends or we are cancelled. Raises what ended it: OSError, TimeoutError,
    `nats_wire.WireError`, and what its reaction raised."""
    while True:
        done, _ = await asyncio.wait([responder.ended], timeout=_PING_S)
        if done:
            responder.ended.result()
        elif not responder.ping():
            raise TimeoutError("the server has been silent")
