"""Who may ask for what."""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from api.client import Api, Json, fresh, only_error, problem_of
from api.conftest import Controller
from prometheus_client import CollectorRegistry
from sqlalchemy import event, select

from achelous_controller.api.context import Services
from achelous_controller.app import create_app
from achelous_controller.store.bootstrap import first_token
from achelous_controller.store.database import Database, create_engine
from achelous_controller.store.migrate import migrate
from achelous_controller.store.projects import REMEMBERED_S
from achelous_controller.store.schema import tokens
from achelous_lab.servers.postgres import PostgresServer


@pytest.mark.parametrize(
    "header", [None, "Bearer", "Bearer ", "Basic YTpi", "Bearer wrong", "wrong", "Bearer \xe9"]
)
async def test_without_a_known_token_nothing_is_told(operator: Api, header: str | None) -> None:
    headers = {} if header is None else {b"Authorization": header.encode("latin-1")}

    reply = await operator.http.get("/v1/vpcs", headers=headers)

    problem_of(reply, 401)
    assert reply.headers["www-authenticate"].startswith("Bearer")


async def test_the_token_is_looked_at_before_the_body(operator: Api) -> None:
    problem_of(await operator.http.post("/v1/vpcs", content=b"{"), 401)
    problem_of(await operator.http.get("/v1/nothing-here"), 401)


async def test_a_token_is_shown_once_and_stored_as_a_hash(
    controller: Controller, operator: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    made = await operator.make("/tokens", name=fresh("t"))
    secret = made["token"]

    assert len(secret) >= 43  # 256 bits in base64
    assert "token" not in await operator.get(f"/tokens/{made['id']}")
    async with controller.engine.connect() as connection:
        stored = (
            await connection.execute(select(tokens.c.hash).where(tokens.c.name == made["name"]))
        ).scalar_one()
    assert stored == hashlib.sha256(secret.encode()).digest()
    assert secret not in caplog.text


async def test_a_revoked_token_opens_nothing_from_then_on(operator: Api) -> None:
    made = await operator.make("/tokens", name=fresh("t"))
    other = operator.with_token(made["token"])
    await other.get("/hosts")

    assert (await operator.delete(f"/tokens/{made['id']}")).status_code == 204

    problem_of(await other.request("GET", "/hosts"), 401)


@pytest.fixture
async def elsewhere(controller: Controller) -> AsyncIterator[Api]:
    """An operator's client of another controller on the same database."""
    services = Services(Database(controller.engine), database_problem=None)
    transport = httpx.ASGITransport(create_app(services, CollectorRegistry()))
    async with httpx.AsyncClient(transport=transport, base_url="http://elsewhere") as http:
        other = Api(http, None)
        other.headers = controller.operator.headers
        yield other


async def used_until_refused(client: Api) -> float:
    """Send requests, one after the other; when the last one began that was let in."""
    last = 0.0
    while True:
        began = time.monotonic()
        reply = await client.request("GET", "/nothing-here")
        if reply.status_code == 401:
            return last
        assert reply.status_code == 404
        last = began


@pytest.mark.parametrize("what", ["the token", "its project"])
async def test_once_its_end_is_told_no_controller_lets_a_token_in(
    operator: Api, elsewhere: Api, what: str
) -> None:
    for _ in range(5):
        project = await operator.project()
        made = await operator.make("/tokens", name=fresh("t"), project_id=project["id"])
        users = [api.with_token(made["token"]) for api in (operator, elsewhere, elsewhere)]
        ends = asyncio.gather(*(used_until_refused(user) for user in users))
        await asyncio.sleep(0.02)

        path = f"/tokens/{made['id']}" if what == "the token" else f"/projects/{project['id']}"
        assert (await operator.delete(path)).status_code == 204
        told = time.monotonic()

        assert max(await ends) < told


async def test_a_token_in_use_is_looked_up_now_and_then(
    controller: Controller, operator: Api
) -> None:
    connections = 0

    def taken(*_: object) -> None:
        nonlocal connections
        connections += 1

    event.listen(controller.engine.sync_engine.pool, "checkout", taken)
    began = time.monotonic()
    for _ in range(20):
        replies = await asyncio.gather(
            *(operator.request("GET", "/nothing-here") for _ in range(10))
        )
        assert {reply.status_code for reply in replies} == {404}
    took = time.monotonic() - began
    event.remove(controller.engine.sync_engine.pool, "checkout", taken)

    assert connections <= 2 + took / REMEMBERED_S


async def test_the_last_operator_token_stays(operator: Api) -> None:
    project = await operator.project()
    await operator.tenant(project)
    page = await operator.get("/tokens")
    ours = [token["id"] for token in page["items"] if token["project_id"] is None]

    replies = await asyncio.gather(*(operator.delete(f"/tokens/{token}") for token in ours[1:]))
    assert {reply.status_code for reply in replies} <= {204}
    problem = problem_of(await operator.delete(f"/tokens/{ours[0]}"), 409)

    assert "last token" in problem["detail"]


async def test_a_key_on_a_token_is_refused_because_its_secret_is_not_kept(operator: Api) -> None:
    reply = await operator.post(
        "/tokens", {"name": fresh("t")}, headers={"Idempotency-Key": fresh("key")}
    )

    assert only_error(reply, 422)["field"] == "Idempotency-Key"


OPERATORS_ONLY = [
    ("GET", "/hosts"),
    ("POST", "/hosts"),
    ("GET", "/gateways"),
    ("GET", "/tokens"),
    ("POST", "/tokens"),
    ("POST", "/projects"),
    ("GET", "/status"),
]
BODIES = {
    "/hosts": {"name": "h", "vtep": "198.18.9.9"},
    "/tokens": {"name": "t"},
    "/projects": {"name": "p"},
}


@pytest.mark.parametrize(("method", "path"), OPERATORS_ONLY)
async def test_a_project_may_not_do_what_operators_do(tenant: Api, method: str, path: str) -> None:
    body = BODIES.get(path) if method == "POST" else None

    problem_of(await tenant.request(method, path, json=body), 403)


async def test_another_projects_objects_are_not_there(operator: Api, tenant: Api) -> None:
    await operator.host()
    vpc = await tenant.vpc()
    subnet = await tenant.subnet(vpc)
    group = await tenant.make("/security-groups", vpc_id=vpc["id"], name="web")
    instance = await tenant.instance(subnet)
    stranger = await operator.tenant(await operator.project())

    updates: list[tuple[str, Json]] = [
        (f"/vpcs/{vpc['id']}", {"name": "mine"}),
        (f"/subnets/{subnet['id']}", {"name": "mine"}),
        (f"/security-groups/{group['id']}", {"name": "mine"}),
        (f"/instances/{instance['id']}", {"name": "mine"}),
        (f"/vnics/{instance['vnics'][0]['id']}", {"security_group_ids": [group["id"]]}),
    ]
    for path, update in updates:
        problem_of(await stranger.request("GET", path), 404)
        problem_of(await stranger.patch(path, update), 404)
        if not path.startswith("/vnics"):
            problem_of(await stranger.delete(path), 404)
    for path in ["/vpcs", "/subnets", "/security-groups", "/instances", "/vnics"]:
        assert (await stranger.get(path))["items"] == []
    problem_of(await stranger.request("GET", f"/projects/{vpc['project_id']}"), 404)
    problem_of(await stranger.post(f"/security-groups/{group['id']}/rules", RULE), 404)
    problem_of(await stranger.post("/vpcs", {"name": "v", "project_id": vpc["project_id"]}), 404)


RULE = {"direction": "ingress"}


async def test_what_a_body_names_of_another_project_does_not_exist(
    operator: Api, tenant: Api
) -> None:
    await operator.host()
    vpc = await tenant.vpc()
    subnet = await tenant.subnet(vpc)
    stranger = await operator.tenant(await operator.project())

    named = await stranger.post(
        "/subnets", {"vpc_id": vpc["id"], "name": "n", "cidr": "10.9.0.0/24"}
    )
    used = await stranger.post("/instances", {"name": "i", "vnics": [{"subnet_id": subnet["id"]}]})

    assert only_error(named, 422)["field"] == "vpc_id"
    assert only_error(used, 422)["field"] == "vnics[0].subnet_id"


async def test_the_first_token_is_made_once_and_kept(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    engine = create_engine(await postgres.create_database(fresh("db").replace("-", "_")))
    await migrate(engine)
    files = [tmp_path / "one" / "token", tmp_path / "two" / "token"]

    await asyncio.gather(*(first_token(engine, file) for file in files))

    (written,) = [file for file in files if file.exists()]
    assert written.stat().st_mode & 0o777 == 0o600
    token = written.read_text()
    await first_token(engine, written)
    assert written.read_text() == token
    assert [path.name for path in written.parent.iterdir()] == ["token"]
    await engine.dispose()
