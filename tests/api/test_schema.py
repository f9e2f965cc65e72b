"""The migrations make the schema that the code works with."""

import asyncio

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from api.client import fresh
from api.conftest import Controller
from sqlalchemy import Connection, text

from achelous_controller.store.database import create_engine
from achelous_controller.store.migrate import migrate
from achelous_controller.store.schema import MAC, VNI, metadata
from achelous_lab.servers.postgres import PostgresServer


def differences(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection), metadata))


async def test_the_migrations_make_the_tables_of_the_code(controller: Controller) -> None:
    async with controller.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_the_migrations_make_the_sequences_of_the_code(controller: Controller) -> None:
    query = text("SELECT sequencename, start_value, max_value, cycle FROM pg_sequences")
    async with controller.engine.connect() as connection:
        found = {tuple(row) for row in await connection.execute(query)}

    assert {(s.name, s.start, s.maxvalue, False) for s in (VNI, MAC)} <= found


async def test_controllers_that_start_at_once_migrate_once(postgres: PostgresServer) -> None:
    dsn = await postgres.create_database(fresh("db").replace("-", "_"))
    engines = [create_engine(dsn) for _ in range(3)]

    await asyncio.gather(*(migrate(engine) for engine in engines))

    async with engines[0].connect() as connection:
        assert await connection.run_sync(differences) == []
    for engine in engines:
        await engine.dispose()
