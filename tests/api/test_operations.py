"""What operators look at: health, metrics, status, the tables of vSwitches and gateways."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from api.client import Api, Json, fresh, fresh_vtep, problem_of
from api.conftest import Controller

from achelous_lab.servers.nats import NatsServer
from achelous_lab.waiting import wait_until
from achelous_shared import messages, subjects
from achelous_shared.bus import Answer, Bus
from achelous_shared.bus_roles import Role


@pytest.fixture
async def bus(controller: Controller, nats_server: NatsServer) -> AsyncIterator[Bus]:
    """The controller's connection to the bus."""
    url = nats_server.url(Role.CONTROLLER)
    async with Bus.connect(url, role=Role.CONTROLLER, name="test") as bus:
        controller.services.bus = bus
        yield bus
        controller.services.bus = None


@pytest.fixture
async def host(operator: Api) -> Json:
    return await operator.host()


@pytest.fixture
async def gateway(operator: Api) -> Json:
    return await operator.make("/gateways", name=fresh("g"), vtep=fresh_vtep())


VSWITCH = messages.VswitchShow(
    host_id=uuid4(),
    revision=7,
    ports=(),
    fc=(
        messages.FcView(
            vni=4096, ip="10.0.0.2", vtep="198.18.0.2", mac="02:00:00:00:00:01", generation=1,
            revision=3, age_ms=12.5, idle_ms=1.0,
        ),
    ),
    fc_total=1,
    sessions=(),
    sessions_total=0,
    gateways=(),
    drops={"no_route": 3},
)  # fmt: skip
GATEWAY = messages.GatewayShow(
    gateway_id=uuid4(), serving=True, vpcs=(), vpcs_total=0, routes_total=0, relayed_packets=5,
    relayed_bytes=500, probes=1, rsp_requests=2, rsp_entries=3, drops={},
)  # fmt: skip


async def ask(
    server: NatsServer, role: Role, subject: str, answer: Answer, api: Api, path: str
) -> Json:
    """What the API shows while a service of this role answers on its subject."""
    async with Bus.connect(server.url(role), role=role, name="test") as bus:
        serving = asyncio.create_task(bus.serve(subject, answer))
        try:
            found: Json = {}

            async def shown() -> bool:
                nonlocal found
                reply = await api.request("GET", path)
                found = reply.json()
                return reply.status_code == 200

            await wait_until(shown, "an answer", timeout=10)
            return found
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


async def test_a_vswitch_shows_its_tables(
    bus: Bus, nats_server: NatsServer, operator: Api, host: Json
) -> None:
    limits = []

    async def answer(data: bytes) -> bytes:
        limits.append(messages.decode(data, messages.ShowRequest).limit)
        return messages.encode(VSWITCH)

    subject = subjects.show("vswitch", UUID(host["id"]))
    path = f"/hosts/{host['id']}/vswitch?limit=5"
    shown = await ask(nats_server, Role.VSWITCH, subject, answer, operator, path)

    assert shown["fc"][0]["ip"] == "10.0.0.2"
    assert shown["drops"] == {"no_route": 3}
    assert set(limits) == {5}


async def test_a_gateway_shows_its_tables(
    bus: Bus, nats_server: NatsServer, operator: Api, gateway: Json
) -> None:
    async def answer(_: bytes) -> bytes:
        return messages.encode(GATEWAY)

    subject = subjects.show("gateway", UUID(gateway["id"]))
    path = f"/gateways/{gateway['id']}/tables"
    shown = await ask(nats_server, Role.GATEWAY, subject, answer, operator, path)

    assert (shown["serving"], shown["relayed_packets"]) == (True, 5)


async def test_who_does_not_answer_is_a_timeout(bus: Bus, operator: Api, host: Json) -> None:
    problem = problem_of(await operator.request("GET", f"/hosts/{host['id']}/vswitch"), 504)

    assert host["id"] in problem["detail"]


async def test_without_a_bus_it_may_be_tried_later(operator: Api, host: Json) -> None:
    reply = await operator.request("GET", f"/hosts/{host['id']}/vswitch")

    problem_of(reply, 503)
    assert int(reply.headers["retry-after"]) >= 1


async def test_an_unknown_host_and_a_project_are_told_nothing(
    bus: Bus, operator: Api, tenant: Api, host: Json
) -> None:
    problem_of(await operator.request("GET", f"/hosts/{uuid4()}/vswitch"), 404)
    problem_of(await tenant.request("GET", f"/hosts/{host['id']}/vswitch"), 403)


async def test_status_counts_what_there_is(operator: Api, tenant: Api, host: Json) -> None:
    before = await operator.get("/status")

    await tenant.instance(await tenant.subnet(await tenant.vpc()))
    after = await operator.get("/status")

    assert after["instances"]["BUILDING"] == before["instances"]["BUILDING"] + 1
    assert after["objects"]["vpcs"] == before["objects"]["vpcs"] + 1
    assert after["checks"]["database"] == "ok"


async def test_requests_are_measured_by_route(operator: Api, host: Json) -> None:
    await operator.get(f"/hosts/{host['id']}")
    await operator.http.get("/made-up-by-a-client")

    text = (await operator.http.get("/metrics")).text

    assert 'http_requests_total{method="GET",route="/v1/hosts/{host_id}",status="200"}' in text
    assert host["id"] not in text
    assert "made-up" not in text


async def test_health_is_told_without_a_token(operator: Api) -> None:
    assert (await operator.http.get("/healthz")).status_code == 200
    ready = await operator.http.get("/readyz")
    assert ready.status_code == 503  # this controller has no bus
    assert set(ready.json()["checks"]) == {"database", "bus", "leader"}
