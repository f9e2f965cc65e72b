"""The message bus: NATS with deadlines, bounded queues, and streams that are followed without gaps.

Core NATS delivers at most once and JetStream's push consumers die with the server that holds them,
so everything here either answers within a deadline or notices the loss and asks again.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final, Self
from urllib.parse import urlsplit

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig

from achelous_shared import messages, nats_wire, subjects
from achelous_shared.nats_wire import Received, WireError
from achelous_shared.responder import BatchAnswer, Outlet, Reaction, connected, replies, serve
from achelous_shared.stream_reader import HEARTBEAT_S, Missed, StreamReader
from achelous_shared.stream_writer import StreamWriter

log = logging.getLogger(__name__)

_PENDING_MESSAGES: Final = 65_536
_PENDING_BYTES: Final = 512 * 1024 * 1024
_RETRY_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)

Handler = Callable[[bytes], Awaitable[None]]
"""Takes the payload of one message."""

BatchHandler = Callable[[Sequence[bytes]], Awaitable[None]]
"""Takes the payloads of messages, in their order."""

Answer = Callable[[bytes], Awaitable[bytes]]
"""Takes the payload of a request, returns that of the reply."""


class BusError(Exception):
    """The bus did not do what was asked of it in time; the caller may try again."""


class Bus:
    """A connection to the bus in one role. Use `Bus.connect`."""

    def __init__(self, client: Client, url: str, name: str) -> None:
        self._client = client
        parts = urlsplit(url)
        user, password = parts.username or "", parts.password or ""
        self._login = nats_wire.connect(user, password, name)
        self._login_with_headers = nats_wire.connect(user, password, name, headers=True)
        self._stream_api = client.jetstream(timeout=5)

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, *, role: str, name: str) -> AsyncIterator[Self]:
        """Connect, waiting for a server as long as it takes; closed on exit.

        ``role`` selects the prefix of the inboxes, which must be the role of the URL's user.
        """

        async def on_error(error: Exception) -> None:
            log.warning("bus: %s", error)

        async def on_disconnect() -> None:
            log.warning("bus: disconnected")

        async def on_reconnect() -> None:
            log.info("bus: connected again")

        client = Client()
        for attempt in _endless():
            try:
                await client.connect(
                    url,
                    name=name,
                    inbox_prefix=subjects.inbox(role).encode(),
                    error_cb=on_error,
                    disconnected_cb=on_disconnect,
                    reconnected_cb=on_reconnect,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.1,
                    connect_timeout=2,
                    ping_interval=5,
                    max_outstanding_pings=2,
                    pending_size=64 * 1024 * 1024,
                )
                break
            except (OSError, nats.errors.Error, TimeoutError) as error:
                log.info("bus: not reachable yet (%s)", error)
                await client.close()
                client = Client()
                await asyncio.sleep(attempt)
        try:
            yield cls(client, url, name)
        finally:
            await client.close()

    @property
    def connected(self) -> bool:
        """Whether a server is connected right now."""
        return bool(self._client.is_connected)

    @property
    def max_payload(self) -> int:
        """Bytes that one message may have, as the server last said."""
        return int(self._client.max_payload)

    async def publish(self, subject: str, message: messages.Message) -> None:
        """Send at most once. Raises `BusError` while no server is connected."""
        await self.publish_bytes(subject, messages.encode(message))

    async def publish_bytes(self, subject: str, data: bytes) -> None:
        """Send what is no `Message` at most once, likewise."""
        try:
            await self._client.publish(subject, data)
        except (nats.errors.Error, OSError) as error:
            raise BusError(f"publish on {subject}: {error}") from error
        finally:
            _pass_cancellation_on()

    async def publish_stream(
        self, stream: str, subject: str, data: bytes, *, message_id: str, timeout: float = 2.0
    ) -> None:
        """Append to a stream, once per ``message_id`` within the stream's duplicate window.

        Returns when the stream has it; raises `BusError` otherwise.
        """
        try:
            await self._stream_api.publish(
                subject,
                data,
                timeout=timeout,
                stream=stream,
                headers={"Nats-Msg-Id": message_id},
            )
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise BusError(f"publish on {subject}: {error!r}") from error
        finally:
            _pass_cancellation_on()

    @asynccontextmanager
    async def stream_writer(self) -> AsyncIterator[StreamWriter]:
        """Appends many messages at once, on a connection of its own to the same server, as the same
        user; closed on exit."""
        writer = StreamWriter(self._address, self._login_with_headers, self._client.new_inbox())
        async with asyncio.TaskGroup() as group:
            running = group.create_task(writer.run())
            yield writer
            running.cancel()

    def _address(self) -> tuple[str, int] | None:
        """Of the server that is connected right now."""
        server = self._client.connected_url
        return (server.hostname, server.port) if server is not None else None

    async def request(self, subject: str, data: bytes, *, timeout: float) -> bytes:
        """Ask and wait ``timeout`` seconds at most for one reply; without one raises `BusError`."""
        try:
            reply = await self._client.request(subject, data, timeout=timeout)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise BusError(f"request on {subject}: {error!r}") from error
        finally:
            _pass_cancellation_on()
        return bytes(reply.data)

    async def listen(self, subject: str, handler: Handler) -> None:
        """Handle every message on ``subject``, one after the other, until cancelled."""
        subscription = await self._subscribe(subject)
        try:
            while True:
                message = await _next(subscription)
                if message is not None:
                    await handler(message.data)
        finally:
            await _unsubscribe(subscription)

    async def serve(
        self, subject: str, answer: Answer, *, queue: str = "", concurrency: int = 16
    ) -> None:
        """Answer requests on ``subject``, up to ``concurrency`` at once, until cancelled.

        ``answer`` must turn its own failures into replies; one that raises fails the service.
        """
        subscription = await self._subscribe(subject, queue)

        async def worker() -> None:
            while True:
                message = await _next(subscription)
                if message is None:
                    continue
                reply = await answer(message.data)
                if message.reply:
                    try:
                        await self._client.publish(message.reply, reply)
                    except nats.errors.Error as error:
                        log.warning("bus: reply on %s lost: %s", subject, error)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(worker())
        finally:
            await _unsubscribe(subscription)

    async def serve_batches(self, subject: str, answer: BatchAnswer, *, max_payload: int) -> None:
        """Answer requests of up to ``max_payload`` bytes at a high rate, until cancelled.

        On a connection of its own to the same server, as the same user. ``answer`` gets all
        requests that have come, an empty payload in place of one that is longer; one that raises
        fails the service.
        """
        await self.react(subject, replies(answer), max_payload=max_payload)

    async def react(
        self, subject: str, reaction: Reaction, *, max_payload: int, outlet: Outlet | None = None
    ) -> None:
        """Publish what ``reaction`` makes of messages, at a high rate likewise, until cancelled.

        ``outlet`` publishes on the same connection what is no reaction.
        """
        while True:
            if (address := self._address()) is not None:
                try:
                    async with connected(
                        address,
                        self._login,
                        subject,
                        reaction,
                        max_payload=max_payload,
                        outlet=outlet,
                    ) as connection:
                        await serve(connection)
                except (OSError, TimeoutError, WireError) as error:
                    log.warning("bus: listening on %s again: %r", subject, error)
            await asyncio.sleep(_RETRY_S[2])

    async def listen_batches(self, subject: str, take: Callable[[Sequence[bytes]], None]) -> None:
        """Give all messages that have come on ``subject``, at a high rate, to ``take``, likewise.

        What comes while the connection is gone is missed.
        """

        def reaction(received: Received) -> list[tuple[bytes, bytes]]:
            take(received.payloads)
            return []

        await self.react(subject, reaction, max_payload=self.max_payload)

    async def ensure_stream(self, config: StreamConfig) -> datetime:
        """Create the stream, or bring an existing one to this configuration. Raises `BusError`.

        Returns when the stream was created: another time than before means that what it held is
        lost.
        """
        try:
            try:
                info = await self._stream_api.add_stream(config)
            except nats.js.errors.BadRequestError:
                info = await self._stream_api.update_stream(config)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise BusError(f"stream {config.name}: {error!r}") from error
        finally:
            _pass_cancellation_on()
        created: datetime | None = info.created
        if created is None:
            raise BusError(f"stream {config.name}: the server does not say when it was created")
        return created

    async def stream_subjects(self, stream: str) -> frozenset[str]:
        """The subjects of which a stream holds messages. Raises `BusError`."""
        try:
            info = await self._stream_api.stream_info(stream, subjects_filter=">")
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise BusError(f"stream {stream}: {error!r}") from error
        finally:
            _pass_cancellation_on()
        return frozenset(info.state.subjects or ())

    async def last_number(self, stream: str) -> int:
        """That of the stream's last message; numbers rise from 1. Raises `BusError`."""
        try:
            return int((await self._stream_api.stream_info(stream)).state.last_seq)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise BusError(f"stream {stream}: {error!r}") from error
        finally:
            _pass_cancellation_on()

    async def stored_after(
        self, stream: str, subject: str, number: int
    ) -> tuple[int, bytes, float]:
        """The first message on ``subject`` above ``number``: its number and payload, and when the
        stream took it, Unix time in seconds. Raises `BusError`, also if there is none."""
        try:
            found = await self._stream_api.get_msg(stream, number + 1, subject, next=True)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise BusError(f"message after {number} of {subject}: {error!r}") from error
        finally:
            _pass_cancellation_on()
        if found.seq is None or found.time is None:
            raise BusError(f"message after {number} of {subject}: the server does not say when")
        return found.seq, found.data or b"", found.time.timestamp()

    async def follow(
        self,
        stream: str,
        subject: str,
        handler: Handler,
        *,
        last: bool,
        begun: Callable[[], None] | None = None,
    ) -> None:
        """Handle every message that the stream takes on ``subject``, in order, until cancelled.

        With ``last`` it starts from (and after a loss repeats) the last message of each subject;
        without, from now on, and resumes after the last one handled. What a stream itself lost, to
        its limits or with its disk, is for the caller to notice by the revisions in the messages.
        ``begun`` is called each time that it begins or resumes: from then on nothing is missed.
        """

        position = _Position(last)
        await self._follow(
            subject, position, lambda: self._follow_once(stream, subject, handler, position, begun)
        )

    async def follow_batches(self, stream: str, subject: str, handler: BatchHandler) -> None:
        """As `follow` from now on, with all messages at once that have come, at a high rate.

        On a connection of its own to the same server, as the same user.
        """
        position = _Position(last=False)
        await self._follow(
            subject, position, lambda: self._read_once(stream, subject, handler, position)
        )

    async def _follow(
        self, subject: str, position: "_Position", once: Callable[[], Awaitable[None]]
    ) -> None:
        for delay in _endless():
            try:
                await once()
            except nats.js.errors.NotFoundError:
                log.info("bus: no stream for %s yet", subject)
            except (
                nats.errors.Error, OSError, TimeoutError, BusError, Missed, WireError
            ) as error:  # fmt: skip
                log.warning("bus: following %s again: %r", subject, error)
            _pass_cancellation_on()
            await asyncio.sleep(delay if not position.moved() else _RETRY_S[0])

    async def _follow_once(
        self,
        stream: str,
        subject: str,
        handler: Handler,
        position: "_Position",
        begun: Callable[[], None] | None,
    ) -> None:
        inbox = self._client.new_inbox()
        subscription = await self._subscribe(inbox)
        try:
            async with self._consumer(stream, subject, inbox, position):
                if begun is not None:
                    begun()
                await self._consume(subscription, handler, position)
        finally:
            await _unsubscribe(subscription)

    async def _read_once(
        self, stream: str, subject: str, handler: BatchHandler, position: "_Position"
    ) -> None:
        async def handle(payloads: Sequence[bytes], last: int) -> None:
            await handler(payloads)
            position.handled(last)

        if (address := self._address()) is None:
            raise BusError("not connected")
        inbox = self._client.new_inbox()
        reader = StreamReader()
        async with (
            connected(
                address, self._login_with_headers, inbox, reader.take, max_payload=self.max_payload
            ) as connection,
            self._consumer(stream, subject, inbox, position),
        ):
            await reader.read(connection, handle)

    @asynccontextmanager
    async def _consumer(
        self, stream: str, subject: str, inbox: str, position: "_Position"
    ) -> AsyncIterator[None]:
        """While inside, a consumer delivers what follows ``position`` on ``inbox``."""
        state = (await self._stream_api.stream_info(stream)).state
        consumer = await self._stream_api.add_consumer(
            stream, position.consumer(subject, inbox, state.first_seq, state.last_seq)
        )
        try:
            yield
        finally:
            if self.connected:
                await self._delete_consumer(stream, consumer.name)

    async def _delete_consumer(self, stream: str, name: str) -> None:
        """Tidy up; a failure must not take the place of what ended the following, nor hold it up.

        A consumer that stays goes by itself when it has been idle.
        """
        try:
            async with asyncio.timeout(1):
                await self._stream_api.delete_consumer(stream, name)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            log.debug("bus: consumer %s of %s stays: %r", name, stream, error)

    async def _consume(
        self, subscription: Subscription, handler: Handler, position: "_Position"
    ) -> None:
        handled = 0
        while True:
            message = await _next(subscription, timeout=3 * HEARTBEAT_S)
            if message is None:
                raise BusError("no heartbeat from the consumer")
            expected = handled + 1
            if _is_status(message):
                missing = int(message.headers.get("Nats-Last-Consumer") or 0) >= expected
                await self._answer_status(message)
            else:
                sequence = message.metadata.sequence
                missing = sequence.consumer != expected
                if not missing:
                    await handler(message.data)
                    handled += 1
                    position.handled(sequence.stream)
            if missing:
                raise BusError(f"message {expected} of the consumer is missing")

    async def _answer_status(self, message: Msg) -> None:
        """Flow control wants an answer, and so does a heartbeat while it stalls."""
        if answer_to := message.reply or message.headers.get("Nats-Consumer-Stalled"):
            await self._client.publish(answer_to)

    async def _subscribe(self, subject: str, queue: str = "") -> Subscription:
        return await self._client.subscribe(
            subject,
            queue=queue,
            pending_msgs_limit=_PENDING_MESSAGES,
            pending_bytes_limit=_PENDING_BYTES,
        )


class _Position:
    """How far a follower has come in its stream."""

    def __init__(self, last: bool) -> None:
        self._last = last
        self._next: int | None = None
        self._moved = False

    def consumer(self, subject: str, inbox: str, first: int, latest: int) -> ConsumerConfig:
        config = ConsumerConfig(
            name=secrets.token_hex(8),  # only a named consumer's filter is subject to permissions
            filter_subject=subject,
            deliver_subject=inbox,
            ack_policy=AckPolicy.NONE,
            idle_heartbeat=HEARTBEAT_S,
            flow_control=True,
            inactive_threshold=10,
            max_deliver=1,
            mem_storage=True,
            num_replicas=1,
        )
        if self._last:
            config.deliver_policy = DeliverPolicy.LAST_PER_SUBJECT
            return config
        if self._next is None or self._next > latest + 1:  # the first time, or a new stream
            self._next = latest + 1
        config.deliver_policy = DeliverPolicy.BY_START_SEQUENCE
        config.opt_start_seq = max(self._next, first, 1)
        return config

    def handled(self, sequence: int) -> None:
        self._next = sequence + 1
        self._moved = True

    def moved(self) -> bool:
        moved, self._moved = self._moved, False
        return moved


def _endless() -> "_Delays":
    return _Delays()


class _Delays:
    """Seconds to wait before each next attempt: short at first, then steady."""

    def __init__(self) -> None:
        self._attempts = 0

    def __iter__(self) -> "_Delays":
        return self

    def __next__(self) -> float:
        delay = _RETRY_S[min(self._attempts, len(_RETRY_S) - 1)]
        self._attempts += 1
        return delay


async def _next(subscription: Subscription, *, timeout: float = 3600.0) -> Msg | None:
    """The next message, or None after ``timeout`` seconds."""
    # the library makes a task and a timer for each message, even for those that are there already
    if (message := _come(subscription)) is not None:
        return message
    try:
        return await subscription.next_msg(timeout=timeout)
    except (nats.errors.TimeoutError, TimeoutError):
        return None
    finally:
        _pass_cancellation_on()


def _come(subscription: Subscription) -> Msg | None:
    """The next message if it is there already."""
    queue = subscription._pending_queue  # noqa: SLF001
    if queue.empty():
        return None
    message: Msg = queue.get_nowait()
    subscription._pending_size -= len(message.data)  # noqa: SLF001
    queue.task_done()
    return message


def _is_status(message: Msg) -> bool:
    return bool(not message.data and message.headers and "Status" in message.headers)


def _pass_cancellation_on() -> None:
    """Cancel the task here if that was asked for while the client library waited.

    It waits by `asyncio.wait_for`, which before Python 3.12 swallows a cancellation that comes
    together with the result; on a closed connection it raises an error of its own instead.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _unsubscribe(subscription: Subscription) -> None:
    try:
        await subscription.unsubscribe()
    except nats.errors.Error as error:  # the connection is gone, and the subscription with it
        log.debug("bus: unsubscribe: %s", error)
