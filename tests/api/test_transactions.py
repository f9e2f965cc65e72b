"""Transactions by the driver itself: whole or not at all, whatever ends them."""

import asyncio
from uuid import UUID, uuid4

import asyncpg
import pytest
from api.client import Api, fresh, problem_of
from api.conftest import Controller
from sqlalchemy import insert, select, text, update

from achelous_controller.domain.errors import Conflict
from achelous_controller.store.database import Database, create_engine
from achelous_controller.store.schema import (
    hosts,
    instances,
    projects,
    security_groups,
    vnic_security_groups,
    vnics,
    vpcs,
)
from achelous_lab.servers.postgres import PostgresServer

_INSERT = "INSERT INTO projects (id, name, quotas) VALUES ($1, $2, '{}')"


@pytest.fixture
def database(controller: Controller) -> Database:
    return controller.services.database


async def is_there(database: Database, project_id: UUID) -> bool:
    """Whether others see a project, on each of several connections."""

    async def found() -> bool:
        async with database.read() as connection:
            query = select(projects.c.id).where(projects.c.id == project_id)
            return (await connection.execute(query)).one_or_none() is not None

    seen = set(await asyncio.gather(*(found() for _ in range(4))))
    assert len(seen) == 1
    return seen.pop()


async def test_what_was_written_is_there_in_the_end_and_not_before(database: Database) -> None:
    project_id = uuid4()

    async with database.transaction("SELECT 1") as driver:
        await driver.execute(_INSERT, project_id, fresh("p"))
        assert not await is_there(database, project_id)

    assert await is_there(database, project_id)


@pytest.mark.parametrize("first", ["SELECT 1", "SELECT 1 / 0"])
async def test_a_refused_transaction_leaves_nothing(database: Database, first: str) -> None:
    project_id = uuid4()

    async def work() -> None:
        async with database.transaction(first) as driver:
            await driver.execute(_INSERT, project_id, fresh("p"))
            raise Conflict("it cannot be")

    with pytest.raises((Conflict, asyncpg.DivisionByZeroError)):
        await work()

    assert not await is_there(database, project_id)


async def test_a_statement_that_fails_undoes_those_before_it(database: Database) -> None:
    project_id = uuid4()

    async def work() -> None:
        async with database.transaction("SELECT 1") as driver:
            for _ in range(2):
                await driver.execute(_INSERT, project_id, fresh("p"))

    with pytest.raises(asyncpg.UniqueViolationError):
        await work()

    assert not await is_there(database, project_id)


async def test_a_cancelled_transaction_leaves_nothing(database: Database) -> None:
    project_id = uuid4()
    written = asyncio.Event()

    async def work() -> None:
        async with database.transaction("SELECT 1") as driver:
            await driver.execute(_INSERT, project_id, fresh("p"))
            written.set()
            await driver.execute("SELECT pg_sleep(60)")

    async with asyncio.timeout(10):
        task = asyncio.create_task(work())
        await written.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert not await is_there(database, project_id)
    async with database.transaction("SELECT 1") as driver:
        await driver.execute(_INSERT, project_id, fresh("p"))
    assert await is_there(database, project_id)


async def test_a_connection_that_was_lost_is_not_used_again(database: Database) -> None:
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        async with database.transaction("SELECT 1") as driver:
            await driver.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    project_id = uuid4()
    async with database.transaction("SELECT 1") as driver:
        await driver.execute(_INSERT, project_id, fresh("p"))
    assert await is_there(database, project_id)


async def test_connections_that_the_pool_does_not_keep_are_closed(
    controller: Controller, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    everybody = asyncio.Barrier(25)

    async def work() -> None:
        async with database.transaction("SELECT 1"):
            await everybody.wait()

    async with asyncio.timeout(20):
        await asyncio.gather(*(work() for _ in range(25)))

    assert caplog.records == []
    assert "Connections in pool: 16 " in controller.engine.pool.status()


async def test_a_deletion_that_waited_has_what_was_committed_meanwhile(
    controller: Controller, operator: Api, tenant: Api
) -> None:
    old, new = [await operator.host() for _ in range(2)]
    vpc = await tenant.vpc()
    subnet = await tenant.subnet(vpc)
    made = await operator.instance(subnet, host_id=old["id"])
    instance_id, vnic_id = UUID(made["id"]), UUID(made["vnics"][0]["id"])
    group_id = uuid4()
    async with asyncio.timeout(20):
        async with controller.engine.begin() as other:
            await other.execute(select(vpcs).where(vpcs.c.id == UUID(vpc["id"])).with_for_update())
            deletion = asyncio.create_task(operator.delete(f"/instances/{instance_id}"))
            await controller.until_somebody_waits()
            group = {"id": group_id, "project_id": UUID(vpc["project_id"]), "name": "late"}
            await other.execute(insert(security_groups).values(vpc_id=UUID(vpc["id"]), **group))
            await other.execute(
                insert(vnic_security_groups).values(vnic_id=vnic_id, security_group_id=group_id)
            )
            there = {"host_id": UUID(new["id"])}
            await other.execute(
                update(instances).where(instances.c.id == instance_id).values(there)
            )
            await other.execute(update(vnics).where(vnics.c.id == vnic_id).values(there))
            for host, more in ((old, -1), (new, 1)):
                count = {"vnic_count": hosts.c.vnic_count + more}
                await other.execute(
                    update(hosts).where(hosts.c.id == UUID(host["id"])).values(count)
                )
        reply = (await deletion).json()

    assert (reply["state"], reply["host_id"]) == ("DELETING", new["id"])
    assert str(group_id) in reply["vnics"][0]["security_group_ids"]
    for host in (old, new):
        assert (await operator.get(f"/hosts/{host['id']}"))["vnic_count"] == 0


@pytest.mark.parametrize("path", ["/instances", "/instances:batch", "/projects"])
async def test_while_the_server_refuses_connections_it_may_be_tried_later(
    controller: Controller, operator: Api, postgres: PostgresServer, path: str
) -> None:
    """As it does while it recovers after a crash: it answers, but with an error."""
    database = controller.engine.url.database
    other = create_engine(await postgres.create_database(fresh("db").replace("-", "_")))
    allow = 'ALTER DATABASE "{}" ALLOW_CONNECTIONS {}'
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"
    try:
        async with other.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await connection.execute(text(allow.format(database, "false")))
            try:
                await connection.execute(text(end.format(database)))
                refused = [await operator.post(path, {}) for _ in range(2)]
            finally:
                await connection.execute(text(allow.format(database, "true")))
    finally:
        await other.dispose()

    for reply in refused:
        assert "database" in problem_of(reply, 503)["detail"]
    assert (await operator.get("/projects"))["items"] is not None
