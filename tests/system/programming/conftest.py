"""Controllers, gateways and hosts on servers of their own."""

from collections.abc import AsyncIterator, Iterator

import pytest
from programming_world import World, world_in

from achelous_lab.rundir import RunDir
from achelous_lab.servers.postgres import PostgresServer


@pytest.fixture(scope="session")
def postgres_dir() -> Iterator[RunDir]:
    with RunDir.create() as directory:
        yield directory


@pytest.fixture(scope="session")
async def postgres(postgres_dir: RunDir) -> AsyncIterator[PostgresServer]:
    async with PostgresServer(postgres_dir.subdir("pg"), fsync=False) as server:
        yield server


@pytest.fixture
async def empty(postgres: PostgresServer, run_dir: RunDir) -> AsyncIterator[World]:
    """A world without controllers, gateways and hosts."""
    async with world_in(postgres, run_dir) as world:
        yield world


@pytest.fixture
async def idle(empty: World) -> World:
    """Two gateways and two hosts; no controller programs them yet."""
    for _ in range(2):
        await empty.add_gateway()
        await empty.add_host()
    return empty


@pytest.fixture
async def world(idle: World) -> World:
    """Two gateways, two hosts and a controller."""
    await idle.add_controller()
    return idle
