"""Controllers as processes of their own: their start, an outage of the database, their end."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from api.client import Api, fresh, problem_of
from api.processes import ControllerProcess

from achelous_lab.rundir import RunDir
from achelous_lab.servers.nats import NatsServer
from achelous_lab.servers.postgres import PostgresServer
from achelous_lab.waiting import wait_until
from achelous_shared.bus_roles import Role


@pytest.fixture
async def own_postgres(run_dir: RunDir) -> AsyncIterator[PostgresServer]:
    """A server that the test may kill."""
    async with PostgresServer(run_dir.subdir("pg"), fsync=False) as server:
        yield server


def controller(directory: Path, dsn: str, nats: NatsServer) -> ControllerProcess:
    directory.mkdir(exist_ok=True)
    return ControllerProcess(directory, dsn, nats.url(Role.CONTROLLER))


async def test_two_controllers_start_on_an_empty_database_and_end_when_told(
    postgres: PostgresServer, nats_server: NatsServer, tmp_path: Path
) -> None:
    dsn = await postgres.create_database(fresh("db").replace("-", "_"))
    pair = [controller(tmp_path / name, dsn, nats_server) for name in ("one", "two")]
    try:
        await asyncio.gather(*(each.start() for each in pair))

        (token_file,) = [each.token_file for each in pair if each.token_file.exists()]
        for each in pair:
            async with each.operator(token_file) as operator:
                await operator.get("/projects")
            assert token_file.read_text().strip() not in each.process.log.read_text()
    finally:
        await asyncio.gather(*(each.process.stop() for each in pair))
    assert [each.process.returncode for each in pair] == [0, 0]
    assert not pair[0].address_file.exists()


async def test_an_outage_of_the_database_is_told_and_survived(
    own_postgres: PostgresServer, nats_server: NatsServer, tmp_path: Path
) -> None:
    each = controller(tmp_path / "one", own_postgres.dsn(), nats_server)
    await each.start()
    try:
        async with each.operator() as operator:
            project = await operator.project()
            await own_postgres.kill9()

            replies = await asyncio.gather(
                operator.request("GET", "/projects"),
                operator.post("/vpcs", {"name": "v", "project_id": project["id"]}),
            )
            for reply in replies:
                problem_of(reply, 503)
                assert int(reply.headers["retry-after"]) >= 1
            await wait_until(lambda: unready(operator), "/readyz to tell", timeout=10)
            assert (await operator.http.get("/healthz")).status_code == 200

            await own_postgres.start()

            await wait_until(lambda: answers(operator), "the API to recover", timeout=20)
            assert (await operator.get(f"/projects/{project['id']}"))["name"] == project["name"]
            await operator.vpc(project)
    finally:
        await each.process.stop()


async def unready(operator: Api) -> bool:
    checks: dict[str, str] = (await operator.http.get("/readyz")).json()["checks"]
    return checks["database"] != "ok"


async def answers(operator: Api) -> bool:
    return (await operator.request("GET", "/projects")).status_code == 200


async def test_a_controller_waits_for_its_database(
    run_dir: RunDir, nats_server: NatsServer, tmp_path: Path
) -> None:
    server = PostgresServer(run_dir.subdir("pg"), fsync=False)
    each = controller(tmp_path / "one", server.dsn(), nats_server)
    starting = asyncio.create_task(each.start())
    try:
        await wait_until(
            lambda: each.process.log.exists() and "not reachable" in each.process.log.read_text(),
            "the controller to find no database",
            timeout=20,
        )
        await server.start()
        await starting

        async with httpx.AsyncClient(base_url=each.url) as http:
            assert (await http.get("/healthz")).status_code == 200
    finally:
        starting.cancel()
        await each.process.stop()
        await server.stop()
