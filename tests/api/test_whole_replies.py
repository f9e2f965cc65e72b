"""A reply that goes out whole is on the wire what one of two messages is."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from api.client import Api, Json, fresh, instance
from api.conftest import Controller

from achelous_controller.api.whole_replies import WholeReplies
from achelous_lab.waiting import wait_until
from achelous_shared.telemetry import serve_http

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(scope="module")
async def address(
    controller: Controller, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, int]]:
    """Where the controller's API is served."""
    file = tmp_path_factory.mktemp("whole") / "address"
    serving = asyncio.create_task(serve_http(controller.app, "127.0.0.1:0", file, WholeReplies))
    await wait_until(file.exists, "the server")
    host, port = file.read_text().strip().split(":")
    yield host, int(port)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


@pytest.fixture
async def wire(address: tuple[str, int]) -> AsyncIterator[Streams]:
    """A connection to it."""
    reader, writer = await asyncio.open_connection(*address)
    yield reader, writer
    writer.close()


def request(method: str, path: str, token: str, body: bytes = b"", *more: str) -> bytes:
    lines = [
        f"{method} /v1{path} HTTP/1.1", "Host: achelous", f"Authorization: {token}",
        "Content-Type: application/json", f"Content-Length: {len(body)}", *more, "", "",
    ]  # fmt: skip
    return "\r\n".join(lines).encode() + body


async def reply(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the next one."""
    async with asyncio.timeout(10):
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()[:-1]
        headers = dict(line.lower().split(": ", 1) for line in lines)
        assert len(headers) == len(lines)
        body = await reader.readexactly(int(headers["content-length"]))
    return int(status.split()[1]), headers, body


@pytest.fixture
async def subnet(operator: Api, tenant: Api) -> Json:
    await operator.host()
    return await tenant.subnet(await tenant.vpc(), "10.0.0.0/16")


def body_of(subnet: Json) -> bytes:
    return b'{"name": "%s", "vnics": [{"subnet_id": "%s"}]}' % (
        fresh("i").encode(),
        subnet["id"].encode(),
    )


async def test_it_has_the_headers_and_the_body_of_the_other_way(
    tenant: Api, subnet: Json, wire: Streams
) -> None:
    reader, writer = wire
    other = await tenant.post("/instances", instance(subnet))

    writer.write(request("POST", "/instances", tenant.headers["Authorization"], body_of(subnet)))
    status, headers, body = await reply(reader)

    made = (await tenant.get("/instances"))["items"][-1]
    assert status == other.status_code == 201
    assert headers.keys() == other.headers.keys() | {"date"}
    assert headers["location"] == f"/v1/instances/{made['id']}"
    assert (await tenant.request("GET", f"/instances/{made['id']}")).content == body


async def test_requests_that_come_at_once_are_answered_in_their_order(
    tenant: Api, subnet: Json, wire: Streams
) -> None:
    reader, writer = wire
    token = tenant.headers["Authorization"]
    creation = request("POST", "/instances", token, body_of(subnet))

    writer.write(creation + request("GET", "/vpcs", token) + request("GET", "/vpcs", "none"))
    writer.write(creation)

    assert [(await reply(reader))[0] for _ in range(4)] == [201, 200, 401, 201]


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "by messages"])
async def test_a_connection_that_is_not_kept_ends_behind_it(
    tenant: Api, subnet: Json, wire: Streams, whole: bool
) -> None:
    reader, writer = wire
    what = ("POST", "/instances") if whole else ("GET", "/vpcs")
    body = body_of(subnet) if whole else b""

    writer.write(request(*what, tenant.headers["Authorization"], body, "Connection: close"))
    status, headers, _ = await reply(reader)

    assert status < 300
    assert headers["connection"] == "close"
    assert await reader.read() == b""


async def test_a_refusal_to_head_has_no_body(wire: Streams) -> None:
    reader, writer = wire

    writer.write(request("HEAD", "/vpcs", "none", b"", "Connection: close"))

    head, end = (await reader.read()).split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 ")
    assert end == b""


async def test_a_refusal_before_the_body_is_there_ends_nothing(
    tenant: Api, subnet: Json, wire: Streams
) -> None:
    reader, writer = wire
    refused = request("POST", "/instances", "none", b"x" * 100_000)

    writer.write(refused[:1000])
    assert (await reply(reader))[0] == 401
    writer.write(refused[1000:])
    writer.write(request("POST", "/instances", tenant.headers["Authorization"], body_of(subnet)))

    assert (await reply(reader))[0] == 201


async def test_who_is_gone_is_not_answered_and_others_are(
    tenant: Api, subnet: Json, wire: Streams, address: tuple[str, int]
) -> None:
    reader, writer = wire
    creation = request("POST", "/instances", tenant.headers["Authorization"], body_of(subnet))
    _, gone = await asyncio.open_connection(*address)

    gone.write(creation)
    await gone.drain()
    gone.transport.abort()
    writer.write(creation)

    assert (await reply(reader))[0] == 201
