"""What a consumer delivers, fed by hand: in order, nothing missed in silence."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from achelous_shared.nats_wire import Received, Splitter
from achelous_shared.responder import Responder
from achelous_shared.stream_reader import Missed, StreamReader

ANSWER = b"$JS.FC.ROUTES.name.x"


class Connection:
    """Of which nothing comes by itself; keeps what is sent."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent = b""

    def write(self, data: bytes) -> None:
        self.sent += data

    def ping(self) -> bool:
        return True


def delivered(numbers: Sequence[int], *, newer: bool = False) -> Received:
    """Messages of a consumer, numbered; in its stream each is 100 further."""
    names = b"_.hash.ROUTES.name" if newer else b"ROUTES.name"
    end = b".token" if newer else b""
    return Received(
        replies_to=[b"$JS.ACK.%b.1.%d.%d.17.0%b" % (names, n + 100, n, end) for n in numbers],
        payloads=[b"%d" % n for n in numbers],
        headers=[b""] * len(numbers),
    )


def status(headers: bytes, reply_to: bytes = b"") -> Received:
    return Received(replies_to=[reply_to], payloads=[b""], headers=[b"NATS/1.0 100\r\n" + headers])


async def read(reader: StreamReader, connection: Connection) -> list[tuple[list[bytes], int]]:
    """What is handed over until it fails."""
    handed: list[tuple[list[bytes], int]] = []

    async def handle(payloads: Sequence[bytes], last: int) -> None:
        handed.append((list(payloads), last))

    task = asyncio.create_task(reader.read(cast(Responder, connection), handle))
    for _ in range(10):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return handed


@pytest.mark.parametrize("newer", [False, True], ids=["9 words", "12 words"])
async def test_what_came_is_handed_over_together_with_its_number(newer: bool) -> None:
    reader = StreamReader()
    reader.take(delivered([1, 2], newer=newer))
    reader.take(delivered([3], newer=newer))
    assert await read(reader, Connection()) == [([b"1", b"2", b"3"], 103)]


async def test_much_is_handed_over_in_parts() -> None:
    reader = StreamReader()
    reader.take(delivered(range(1, 601)))
    handed = await read(reader, Connection())
    assert [data for part, _ in handed for data in part] == [b"%d" % n for n in range(1, 601)]
    assert [last for _, last in handed] == [356, 612, 700]


async def test_flow_control_is_answered_when_what_came_before_is_handled() -> None:
    reader, connection = StreamReader(), Connection()
    reader.take(delivered([1]))
    reader.take(status(b"\r\n", ANSWER))
    assert connection.sent == b""
    await read(reader, connection)
    assert connection.sent == b"PUB %b 0\r\n\r\n" % ANSWER


async def test_a_heartbeat_that_stalls_is_answered() -> None:
    reader, connection = StreamReader(), Connection()
    reader.take(status(b"Nats-Last-Consumer: 0\r\nNats-Consumer-Stalled: %b\r\n\r\n" % ANSWER))
    await read(reader, connection)
    assert connection.sent == b"PUB %b 0\r\n\r\n" % ANSWER


@pytest.mark.parametrize("numbers", [[1, 3], [2], [1, 1]])
async def test_a_gap_is_no_silence(numbers: list[int]) -> None:
    with pytest.raises(Missed, match="consumer is missing"):
        StreamReader().take(delivered(numbers))


async def test_a_heartbeat_tells_of_the_last_message() -> None:
    reader = StreamReader()
    reader.take(delivered([1]))
    reader.take(status(b"Nats-Last-Consumer: 1\r\nNats-Last-Stream: 101\r\n\r\n"))
    with pytest.raises(Missed, match="message 2 of the consumer is missing"):
        reader.take(status(b"Nats-Last-Consumer: 2\r\nNats-Last-Stream: 102\r\n\r\n"))


async def test_what_came_before_a_gap_is_handed_over() -> None:
    reader = StreamReader()
    with pytest.raises(Missed):
        reader.take(delivered([1, 2, 4]))
    assert await read(reader, Connection()) == [([b"1", b"2"], 102)]


async def test_what_ended_the_connection_ends_the_reading() -> None:
    connection = Connection()
    connection.ended.set_exception(ConnectionError("gone"))

    async def handle(_: Sequence[bytes], __: int) -> None:
        raise AssertionError("nothing came")

    with pytest.raises(ConnectionError, match="gone"):
        await asyncio.wait_for(StreamReader().read(cast(Responder, connection), handle), 5)


def test_headers_come_apart_from_the_payload() -> None:
    headers = b"NATS/1.0\r\nNats-Msg-Id: 7\r\n\r\n"
    line = b"HMSG a.b 1 reply %d %d\r\n" % (len(headers), len(headers) + 5)
    found = Splitter(1000).feed(line + headers + b"hello\r\nMSG a.b 1 0\r\n\r\n")
    assert found.payloads == [b"hello", b""]
    assert found.headers == [headers, b""]
    assert found.replies_to == [b"reply", b""]
