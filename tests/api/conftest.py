"""The API on a real PostgreSQL and a real NATS: servers once, a database per module."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from api.client import Api, fresh
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.types import ASGIApp

from achelous_controller.api.context import Services
from achelous_controller.app import create_app
from achelous_controller.store.bootstrap import first_token
from achelous_controller.store.database import Database, create_engine
from achelous_controller.store.migrate import migrate
from achelous_lab.rundir import RunDir
from achelous_lab.servers.nats import NatsServer
from achelous_lab.servers.postgres import PostgresServer
from achelous_lab.waiting import wait_until


@dataclass(frozen=True, slots=True)
class Controller:
    """A controller's API in this process, and what it stands on."""

    app: ASGIApp
    services: Services
    engine: AsyncEngine
    operator: Api

    async def until_somebody_waits(self, count: int = 1) -> None:
        """Until so many wait for a lock of the database."""
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")

        async def waits() -> bool:
            async with self.engine.connect() as connection:
                return int((await connection.execute(waiting)).scalar_one()) >= count

        await wait_until(waits, f"{count} to wait for a lock", timeout=10)


@pytest.fixture(scope="session")
def api_dir() -> Iterator[RunDir]:
    with RunDir.create() as directory:
        yield directory


@pytest.fixture(scope="session")
async def postgres(api_dir: RunDir) -> AsyncIterator[PostgresServer]:
    async with PostgresServer(api_dir.subdir("pg"), fsync=False) as server:
        yield server


@pytest.fixture(scope="session")
async def nats_server(api_dir: RunDir) -> AsyncIterator[NatsServer]:
    async with NatsServer(api_dir.subdir("nats")) as server:
        yield server


@pytest.fixture(scope="module")
async def controller(postgres: PostgresServer, api_dir: RunDir) -> AsyncIterator[Controller]:
    """On a database of the module's own."""
    async with asyncio.timeout(60):
        dsn = await postgres.create_database(fresh("db").replace("-", "_"))
        engine = create_engine(dsn)
        await migrate(engine)
        token_file = api_dir.path / fresh("operator.token")
        await first_token(engine, token_file)
    services = Services(Database(engine), database_problem=None)
    app = create_app(services, CollectorRegistry())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://achelous") as http:
        yield Controller(app, services, engine, Api(http, _token(token_file)))
    await engine.dispose()


@pytest.fixture
def operator(controller: Controller) -> Api:
    """A client with the operators' first token."""
    return controller.operator


@pytest.fixture
async def tenant(operator: Api) -> Api:
    """A client with the token of a project of the test's own."""
    return await operator.tenant(await operator.project())


def _token(path: Path) -> str:
    return path.read_text().strip()
