"""Reads what a consumer of a stream delivers, on a connection of its own: whole reads at once.

A client library makes tasks and timers for each message, which cost more than to apply it.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from achelous_shared import nats_wire
from achelous_shared.nats_wire import Received
from achelous_shared.responder import Responder, serve

HEARTBEAT_S: Final = 1.0
"""Of a consumer with nothing to deliver."""
_SILENCE_S: Final = 3 * HEARTBEAT_S
_AT_ONCE: Final = 256
"""Messages handed over together, at most."""
_ACK: Final = b"$JS.ACK."
_WORDS: Final = 9
"""Of the subject of an acknowledgement, but for newer servers, which have two more before these:
$JS.ACK.<stream>.<consumer>.<times>.<number in stream>.<number of consumer>.<time>.<pending>"""
_LAST: Final = re.compile(rb"\r\nNats-Last-Consumer: *(\d+)")
_STALLED: Final = re.compile(rb"\r\nNats-Consumer-Stalled: *(\S+)")


class Missed(Exception):
    """The consumer has sent what did not come, or sends nothing any more."""


class StreamReader:
    """What one consumer delivers, in order. Holds what it sends before it waits for an answer."""

    def __init__(self) -> None:
        self._payloads: list[bytes] = []
        self._sequences: list[int] = []  # of each, in the stream
        self._answers: list[bytes] = []
        self._taken = 0
        self._come = asyncio.Event()
        self._heard = True
        self._silent = False

    def take(self, received: Received) -> tuple[()]:
        """See `responder.Reaction`. Raises `Missed`."""
        self._heard = True
        try:
            for reply_to, payload, headers in zip(
                received.replies_to, received.payloads, received.headers, strict=True
            ):
                if reply_to.startswith(_ACK):
                    self._take(reply_to, payload)
                else:
                    self._take_status(reply_to, headers)
        finally:
            if self._payloads or self._answers:
                self._come.set()
        return ()

    async def read(
        self, connection: Responder, handle: Callable[[Sequence[bytes], int], Awaitable[None]]
    ) -> None:
        """Give all that comes to ``handle``, with the number in the stream of the last, until
        cancelled. Raises `Missed`, and what ended the connection (see `responder.serve`)."""
        serving = asyncio.create_task(serve(connection))
        serving.add_done_callback(lambda _: self._come.set())
        listening = asyncio.create_task(self._listen())
        try:
            while True:
                await self._come.wait()
                self._come.clear()
                await self._hand_over(connection, handle)
                if serving.done():
                    serving.result()
                if self._silent:
                    raise Missed("no heartbeat from the consumer")
        finally:
            listening.cancel()
            serving.cancel()
            await asyncio.gather(listening, serving, return_exceptions=True)

    async def _hand_over(
        self, connection: Responder, handle: Callable[[Sequence[bytes], int], Awaitable[None]]
    ) -> None:
        while self._payloads:
            payloads, last = self._payloads[:_AT_ONCE], self._sequences[:_AT_ONCE][-1]
            await handle(payloads, last)
            del self._payloads[: len(payloads)], self._sequences[: len(payloads)]
        answers, self._answers = self._answers, []
        if answers:
            connection.write(nats_wire.publish((subject, b"") for subject in answers))

    def _take(self, reply_to: bytes, payload: bytes) -> None:
        words = reply_to.split(b".")
        at = 5 if len(words) == _WORDS else 7
        self._must_be_next(int(words[at + 1]) - 1)
        self._taken += 1
        self._payloads.append(payload)
        self._sequences.append(int(words[at]))

    def _take_status(self, reply_to: bytes, headers: bytes) -> None:
        """Flow control wants an answer, and so does a heartbeat while it stalls."""
        if (last := _LAST.search(headers)) is not None:
            self._must_be_next(int(last[1]))
        if reply_to:
            self._answers.append(reply_to)
        elif (stalled := _STALLED.search(headers)) is not None:
            self._answers.append(stalled[1])

    def _must_be_next(self, sent: int) -> None:
        if sent != self._taken:
            raise Missed(f"message {self._taken + 1} of the consumer is missing, it sent {sent}")

    async def _listen(self) -> None:
        """Until nothing was heard for too long."""
        while self._heard:
            self._heard = False
            await asyncio.sleep(_SILENCE_S)
        self._silent = True
        self._come.set()
