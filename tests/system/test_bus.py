"""The bus on a real server: streams are followed through restarts, in the role's own limits."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import nats
import pytest
from background import running
from nats.aio.client import Client
from nats.js.api import StreamConfig

from achelous_lab.rundir import RunDir
from achelous_lab.servers.nats import NatsServer
from achelous_lab.waiting import wait_until
from achelous_shared import nats_wire, subjects
from achelous_shared.bus import Bus, BusError
from achelous_shared.bus_roles import Role
from achelous_shared.responder import Outlet, Refused, connected, replies, serve
from achelous_shared.stream_writer import Append, StreamWriter


@pytest.fixture
async def server(run_dir: RunDir) -> AsyncIterator[NatsServer]:
    async with NatsServer(run_dir.path) as server:
        yield server


@pytest.fixture
async def controller(server: NatsServer) -> AsyncIterator[Bus]:
    async with Bus.connect(server.url(Role.CONTROLLER), role="controller", name="test") as bus:
        await ensure_streams(bus)
        yield bus


@pytest.fixture
async def gateway(server: NatsServer) -> AsyncIterator[Bus]:
    async with Bus.connect(server.url(Role.GATEWAY), role="gateway", name="test") as bus:
        yield bus


@pytest.fixture
async def vswitch(server: NatsServer) -> AsyncIterator[Bus]:
    async with Bus.connect(server.url(Role.VSWITCH), role="vswitch", name="test") as bus:
        yield bus


async def ensure_streams(bus: Bus) -> None:
    await bus.ensure_stream(StreamConfig(subjects.ROUTES_STREAM, subjects=[subjects.ALL_ROUTES]))
    hosts = StreamConfig(
        subjects.HOSTS_STREAM,
        subjects=[subjects.ALL_HOSTS, subjects.ALL_HOST_CHANGES, subjects.FLEET],
        max_msgs_per_subject=1,
    )
    await bus.ensure_stream(hosts)


def into(received: list[bytes]) -> Callable[[bytes], Awaitable[None]]:
    async def handler(data: bytes) -> None:
        received.append(data)

    return handler


def one_by_one(bus: Bus, received: list[bytes]) -> Awaitable[None]:
    return bus.follow(subjects.ROUTES_STREAM, subjects.ALL_ROUTES, into(received), last=False)


def in_batches(bus: Bus, received: list[bytes]) -> Awaitable[None]:
    async def handler(payloads: Sequence[bytes]) -> None:
        received.extend(payloads)

    return bus.follow_batches(subjects.ROUTES_STREAM, subjects.ALL_ROUTES, handler)


@asynccontextmanager
async def nats_client(server: NatsServer) -> AsyncIterator[Client]:
    """As a user who may do everything."""
    inbox = subjects.inbox(Role.OBSERVER)
    client = await nats.connect(server.url(Role.OBSERVER), inbox_prefix=inbox.encode())
    try:
        yield client
    finally:
        await client.close()


Follow = Callable[[Bus, list[bytes]], Awaitable[None]]

EACH_WAY = pytest.mark.parametrize("following", [one_by_one, in_batches])
"""To follow all routes from now on."""


async def append(bus: Bus, *numbers: int) -> None:
    for number in numbers:
        await bus.publish_stream(
            subjects.ROUTES_STREAM, subjects.routes(5), b"%d" % number, message_id=f"5-{number}"
        )


async def test_a_follower_sees_every_message_once_and_in_order(
    controller: Bus, gateway: Bus
) -> None:
    received: list[bytes] = []
    follow = gateway.follow(subjects.ROUTES_STREAM, subjects.ALL_ROUTES, into(received), last=False)
    async with running(follow):
        await append(controller, 0)  # repeated until the follower is there
        await wait_until(lambda: _sent_until_seen(controller, received), "the follower")
        received.clear()
        await append(controller, *range(1, 200), *range(150, 200))
        await wait_until(lambda: received[-1] == b"199", "all messages")
    assert [data for data in received if data != b"0"] == [b"%d" % n for n in range(1, 200)]


async def _sent_until_seen(controller: Bus, received: Sequence[object]) -> bool:
    await controller.publish_stream(
        subjects.ROUTES_STREAM, subjects.routes(5), b"0", message_id=str(uuid4())
    )
    return bool(received)


async def test_messages_that_wait_are_handed_over_together(controller: Bus, gateway: Bus) -> None:
    batches: list[list[bytes]] = []

    async def handler(payloads: Sequence[bytes]) -> None:
        batches.append(list(payloads))
        await asyncio.sleep(0.05)

    follow = gateway.follow_batches(subjects.ROUTES_STREAM, subjects.ALL_ROUTES, handler)
    async with running(follow):
        await wait_until(lambda: _sent_until_seen(controller, batches), "the follower")
        await append(controller, *range(1, 200))
        await wait_until(lambda: batches[-1][-1] == b"199", "all messages")
    seen = [data for batch in batches for data in batch if data != b"0"]
    assert seen == [b"%d" % n for n in range(1, 200)]
    assert len(batches) < 150


async def test_a_stream_says_when_it_took_a_message(controller: Bus, server: NatsServer) -> None:
    stream, begun = subjects.ROUTES_STREAM, time.time()
    await append(controller, 1, 2)
    await controller.publish_stream(stream, subjects.routes(6), b"6", message_id="6")
    ended = time.time()
    async with Bus.connect(server.url(Role.OBSERVER), role=Role.OBSERVER, name="test") as observer:
        last = await observer.last_number(stream)
        number, data, at = await observer.stored_after(stream, subjects.routes(6), 0)
        assert (number, data) == (last, b"6")
        assert begun - 0.001 <= at <= ended
        with pytest.raises(BusError, match="message after"):
            await observer.stored_after(stream, subjects.routes(5), last)


async def test_once_it_has_begun_a_follower_of_one_vpc_misses_nothing(
    controller: Bus, vswitch: Bus
) -> None:
    received: list[bytes] = []
    begun = asyncio.Event()
    stream, subject = subjects.ROUTES_STREAM, subjects.routes(5)
    follow = vswitch.follow(stream, subject, into(received), last=False, begun=begun.set)
    async with running(follow):
        await asyncio.wait_for(begun.wait(), 5)
        await append(controller, 1)
        await controller.publish_stream(stream, subjects.routes(6), b"2", message_id=str(uuid4()))
        await append(controller, 3)
        await wait_until(lambda: received == [b"1", b"3"], "its own messages")
        with pytest.raises(BusError):  # a vSwitch reads routes and makes none
            await vswitch.publish_stream(stream, subject, b"4", message_id="4", timeout=0.2)


@EACH_WAY
async def test_a_follower_goes_on_after_kill_9_of_the_server(
    server: NatsServer, controller: Bus, gateway: Bus, following: Follow
) -> None:
    received: list[bytes] = []
    async with running(following(gateway, received)):
        await wait_until(lambda: _sent_until_seen(controller, received), "the follower")
        await append(controller, 1)
        await server.kill9()
        await server.start()
        await wait_until(lambda: controller.connected, "the controller to reconnect", timeout=10)
        await append(controller, 2, 3)
        await wait_until(lambda: received[-1:] == [b"3"], "the messages", timeout=15)
    assert received[-3:] == [b"1", b"2", b"3"]


@EACH_WAY
async def test_a_follower_whose_consumer_is_removed_begins_another(
    server: NatsServer, controller: Bus, gateway: Bus, following: Follow
) -> None:
    received: list[bytes] = []
    async with nats_client(server) as client, running(following(gateway, received)):
        await wait_until(lambda: _sent_until_seen(controller, received), "the follower")
        stream = client.jetstream()
        for consumer in await stream.consumers_info(subjects.ROUTES_STREAM):
            await stream.delete_consumer(subjects.ROUTES_STREAM, consumer.name)
        await append(controller, 1, 2)
        await wait_until(lambda: received[-1:] == [b"2"], "the messages", timeout=15)
    assert received[-2:] == [b"1", b"2"]


@EACH_WAY
async def test_a_follower_whose_consumer_is_gone_can_be_cancelled(
    server: NatsServer, controller: Bus, gateway: Bus, following: Follow
) -> None:
    received: list[bytes] = []
    follow = asyncio.ensure_future(following(gateway, received))
    await wait_until(lambda: _sent_until_seen(controller, received), "the follower")
    await server.kill9()  # and with it its consumers
    await server.start()
    await wait_until(lambda: gateway.connected, "the gateway to reconnect")
    follow.cancel()
    done, _ = await asyncio.wait([follow], timeout=3)
    assert done == {follow}
    assert follow.cancelled()


async def test_a_reader_of_last_values_gets_the_last_and_then_each_next(
    controller: Bus, server: NatsServer
) -> None:
    host = uuid4()
    for number in (1, 2):
        await controller.publish_stream(
            subjects.HOSTS_STREAM, subjects.host(host), b"%d" % number, message_id=str(uuid4())
        )
    received: list[bytes] = []
    async with (
        Bus.connect(server.url(Role.VSWITCH), role="vswitch", name="test") as vswitch,
        running(
            vswitch.follow(subjects.HOSTS_STREAM, subjects.host(host), into(received), last=True)
        ),
    ):
        await wait_until(lambda: received == [b"2"], "the last value")
        await controller.publish_stream(
            subjects.HOSTS_STREAM, subjects.host(host), b"3", message_id=str(uuid4())
        )
        await wait_until(lambda: received == [b"2", b"3"], "the next value")


async def test_a_request_without_an_answer_ends_by_its_deadline(gateway: Bus) -> None:
    with pytest.raises(BusError, match="snapshot"):
        await gateway.request(subjects.SNAPSHOT_ROUTES, b"", timeout=0.2)


class TestBatches:
    """Requests that are answered in batches, on a connection of their own."""

    GATEWAY = uuid4()
    SUBJECT = subjects.rsp(GATEWAY)

    async def test_each_of_many_requests_at_once_gets_its_own_reply(
        self, gateway: Bus, vswitch: Bus
    ) -> None:
        async with running(gateway.serve_batches(self.SUBJECT, echo_all, max_payload=100)):
            await wait_until(lambda: answers(vswitch, self.SUBJECT), "an answer")
            asked = [b"%d" % number for number in range(2000)]
            replies = await asyncio.gather(
                *(vswitch.request(self.SUBJECT, data, timeout=5) for data in asked)
            )
        assert replies == [b"re:" + data for data in asked]

    async def test_a_longer_payload_comes_empty_and_the_next_one_whole(
        self, gateway: Bus, vswitch: Bus
    ) -> None:
        async with running(gateway.serve_batches(self.SUBJECT, echo_all, max_payload=100)):
            await wait_until(lambda: answers(vswitch, self.SUBJECT), "an answer")
            sizes = (500_000, 100, 101)
            replies = [
                await vswitch.request(self.SUBJECT, b"x" * size, timeout=2) for size in sizes
            ]
        assert replies == [b"re:", b"re:" + b"x" * 100, b"re:"]

    async def test_they_are_answered_again_after_kill_9_of_the_server(
        self, server: NatsServer, gateway: Bus, vswitch: Bus
    ) -> None:
        async with running(gateway.serve_batches(self.SUBJECT, echo_all, max_payload=100)):
            await wait_until(lambda: answers(vswitch, self.SUBJECT), "an answer")
            await server.kill9()
            await server.start()
            await wait_until(lambda: answers(vswitch, self.SUBJECT), "an answer", timeout=10)

    async def test_what_is_no_reply_goes_out_in_between_while_the_connection_stands(
        self, server: NatsServer, gateway: Bus, vswitch: Bus
    ) -> None:
        outlet, came = Outlet(), list[bytes]()
        inbox = f"{subjects.inbox(Role.VSWITCH)}.test"
        line = f"{self.SUBJECT} {inbox}".encode()
        asked = [(line, b"%d" % number) for number in range(3)]

        def take(received: nats_wire.Received) -> list[tuple[bytes, bytes]]:
            came.extend(received.payloads)
            return []

        def all_came() -> bool:
            outlet.publish(asked)
            return {b"re:0", b"re:1", b"re:2"} <= set(came)

        assert not outlet.publish(asked)
        async with running(
            gateway.serve_batches(self.SUBJECT, echo_all, max_payload=100),
            vswitch.react(inbox, take, max_payload=100, outlet=outlet),
        ):
            await wait_until(all_came, "the replies")
            await server.kill9()
            await wait_until(lambda: not outlet.publish(asked), "the connection to end")
            came.clear()
            await server.start()
            await wait_until(all_came, "the replies")

    async def test_nobody_answers_once_it_is_cancelled(self, gateway: Bus, vswitch: Bus) -> None:
        async with running(gateway.serve_batches(self.SUBJECT, echo_all, max_payload=100)):
            await wait_until(lambda: answers(vswitch, self.SUBJECT), "an answer")
        assert not await answers(vswitch, self.SUBJECT)

    async def test_an_answer_that_fails_fails_the_service(self, gateway: Bus, vswitch: Bus) -> None:
        def fail(_: Sequence[bytes]) -> list[bytes]:
            raise ZeroDivisionError

        service = asyncio.ensure_future(gateway.serve_batches(self.SUBJECT, fail, max_payload=100))

        async def failed() -> bool:
            await answers(vswitch, self.SUBJECT)
            return service.done()

        await wait_until(failed, "the service to end")
        with pytest.raises(ZeroDivisionError):
            await service

    async def answer(self, url: str) -> None:
        reaction = replies(echo_all)
        async with connected(*logged_in(url), self.SUBJECT, reaction, max_payload=100) as made:
            await serve(made)

    async def test_a_role_answers_on_its_own_subjects_only(self, server: NatsServer) -> None:
        url = server.url(Role.VSWITCH)
        with pytest.raises(Refused, match="Permissions Violation for Subscription"):
            await self.answer(url)

    async def test_a_wrong_password_is_refused(self, server: NatsServer) -> None:
        url = server.url(Role.GATEWAY).replace("gateway:", "gateway:not-")
        with pytest.raises(Refused, match="Authorization Violation"):
            await self.answer(url)


def logged_in(url: str) -> tuple[tuple[str, int], bytes]:
    parts = urlsplit(url)
    assert parts.username
    assert parts.password
    login = nats_wire.connect(parts.username, parts.password, "test")
    return (parts.hostname or "", parts.port or 0), login


def echo_all(requests: Sequence[bytes]) -> list[bytes]:
    return [b"re:" + data for data in requests]


async def answers(asker: Bus, subject: str) -> bool:
    try:
        return await asker.request(subject, b"x", timeout=0.2) == b"re:x"
    except BusError:
        return False


async def test_requests_are_answered_by_one_of_a_queue(controller: Bus, gateway: Bus) -> None:
    async def answer(data: bytes) -> bytes:
        return b"re:" + data

    serve = [
        controller.serve(subjects.SNAPSHOT_ROUTES, answer, queue="controllers") for _ in range(2)
    ]
    async with running(*serve):

        async def answered() -> bool:
            try:
                reply = await gateway.request(subjects.SNAPSHOT_ROUTES, b"x", timeout=0.5)
            except BusError:
                return False
            return reply == b"re:x"

        await wait_until(answered, "an answer")


class TestStreamWriter:
    """Many messages at once, each acknowledged."""

    @pytest.fixture
    async def writer(self, controller: Bus) -> AsyncIterator[StreamWriter]:
        async with controller.stream_writer() as writer:
            await wait_until(lambda: writer.connected, "the writer")
            yield writer

    async def test_messages_of_one_call_are_taken_in_their_order(
        self, writer: StreamWriter, gateway: Bus
    ) -> None:
        received: list[bytes] = []
        begun = asyncio.Event()
        stream, subject = subjects.ROUTES_STREAM, subjects.ALL_ROUTES
        follow = gateway.follow(stream, subject, into(received), last=False, begun=begun.set)
        async with running(follow):
            await asyncio.wait_for(begun.wait(), 5)
            calls = [[*range(at, at + 100)] for at in range(0, 500, 100)]
            taken = await asyncio.gather(*(writer.append(routes(*call)) for call in calls))
            assert all(map(all, taken))
            await wait_until(lambda: len(received) >= 500, "all messages")
        assert received == [b"%d" % number for number in range(500)]

    async def test_of_two_with_one_id_the_stream_takes_one_and_both_are_taken(
        self, writer: StreamWriter, controller: Bus
    ) -> None:
        once = [replace(one, message_id=f"5-{one.data!r}") for one in routes(1, 2)]
        assert await writer.append([*once, *once]) == [True] * 4
        assert await writer.append(once) == [True] * 2
        assert await length(controller, subjects.ROUTES_STREAM) == 2

    async def test_a_message_that_no_stream_takes_is_told_at_once_and_the_others_are_taken(
        self, writer: StreamWriter
    ) -> None:
        nowhere = Append(f"{subjects.PREFIX}.command.gateway.x", b"")
        async with asyncio.timeout(1):
            assert await writer.append([*routes(1), nowhere, *routes(2)]) == [True, False, True]

    async def test_a_message_that_the_stream_refuses_is_told(
        self, writer: StreamWriter, controller: Bus
    ) -> None:
        await controller.ensure_stream(
            StreamConfig(subjects.ROUTES_STREAM, subjects=[subjects.ALL_ROUTES], max_msg_size=10)
        )
        large = Append(subjects.routes(5), b"x" * 11)
        assert await writer.append([*routes(1), large, *routes(2)]) == [True, False, True]

    async def test_a_server_that_is_silent_is_given_up_by_the_deadline(
        self, writer: StreamWriter, server: NatsServer
    ) -> None:
        await stopped(server)
        try:
            assert await writer.append(routes(1, 2), timeout=0.2) == [False, False]
        finally:
            server.process.send_signal(signal.SIGCONT)
        await wait_until(lambda: takes(writer, 3), "the server to go on")

    async def test_what_is_under_way_when_the_server_dies_is_told_and_goes_again(
        self, writer: StreamWriter, server: NatsServer
    ) -> None:
        await stopped(server)
        under_way = asyncio.create_task(writer.append(routes(1, 2), timeout=20))
        await asyncio.sleep(0)
        await server.kill9()
        assert await asyncio.wait_for(under_way, 5) == [False, False]
        assert not writer.connected
        assert await writer.append(routes(1)) == [False]
        await server.start()
        await wait_until(lambda: takes(writer, 1), "the next connection")

    async def test_it_ends_with_its_owner(self, controller: Bus) -> None:
        async with controller.stream_writer() as writer:
            await wait_until(lambda: writer.connected, "the writer")
        assert not writer.connected
        assert await writer.append(routes(1)) == [False]


async def stopped(server: NatsServer) -> None:
    """Returns when none of its threads runs any more."""
    server.process.send_signal(signal.SIGSTOP)
    tasks = Path(f"/proc/{server.process.pid}/task")

    def still() -> bool:
        return all(") T " in (task / "stat").read_text() for task in tasks.iterdir())

    await wait_until(still, "the server to stop")


def routes(*numbers: int) -> list[Append]:
    return [Append(subjects.routes(5), b"%d" % number) for number in numbers]


async def takes(writer: StreamWriter, number: int) -> bool:
    return await writer.append(routes(number)) == [True]


async def length(bus: Bus, stream: str) -> int:
    """The number of messages that a stream has."""
    state = (await bus._stream_api.stream_info(stream)).state
    return int(state.messages)
