"""Whatever a list is filtered by, a page has what matches, and is found without reading much else.

Instances that belong together are neighbours, as they are where ids rise with time, and PostgreSQL
knows them from statistics, from none, or from those of a time when there were few.
"""

import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any
from uuid import UUID

import pytest
from api.client import fresh
from api.plans import nodes
from sqlalchemy import exists, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from achelous_controller.programming import route_pages
from achelous_controller.store import listing, objects, schema
from achelous_controller.store.database import create_engine, driver_of
from achelous_controller.store.migrate import migrate
from achelous_lab.servers.postgres import PostgresServer
from achelous_shared.routes import ip_bytes

PAGE = 20
MOST_READ = 12 * PAGE


@dataclass(frozen=True, slots=True)
class Block:
    """Instances that were made at once."""

    first: int
    count: int
    vpc: int
    project: int
    kind: str = "container"


EARLY = Block(first=1, count=100, vpc=1, project=1)
BLOCKS = (
    Block(first=1_000, count=20_000, vpc=1, project=1),
    Block(first=30_000, count=8_000, vpc=2, project=1),
    Block(first=40_000, count=50, vpc=3, project=1, kind="vm"),
    Block(first=50_000, count=8_000, vpc=4, project=2, kind="vm"),
    Block(first=60_000, count=50, vpc=5, project=2),
    Block(first=61_000, count=50, vpc=4, project=2),
)
HOSTS = 300
ON_ONE_HOST = 150
WAITING = 4_000
DEEP = (None, UUID(int=15_000), UUID(int=37_000))

_FILL = (
    """INSERT INTO instances (id, project_id, name, kind, host_id, state, host_revision,
                              accepted_at)
       SELECT lpad(to_hex(n), 32, '0')::uuid, lpad(to_hex({project}), 32, '0')::uuid,
              'i-' || n % 7000, '{kind}', lpad(to_hex(n % {hosts}), 32, '0')::uuid, 'ACTIVE', 1,
              now()
       FROM generate_series({first}, {first} + {count} - 1) AS n""",
    # every fiftieth has a second vNIC in its VPC
    """INSERT INTO vnics (id, instance_id, subnet_id, project_id, vpc_id, host_id, position, ip,
                          mac, vni, revision)
       SELECT lpad(to_hex(16 * n + place), 32, '0')::uuid, lpad(to_hex(n), 32, '0')::uuid,
              lpad(to_hex({vpc}), 32, '0')::uuid, lpad(to_hex({project}), 32, '0')::uuid,
              lpad(to_hex({vpc}), 32, '0')::uuid, lpad(to_hex(n % {hosts}), 32, '0')::uuid, place,
              inet '10.0.0.0' + 2 * n + place, 2 * n + place, 4096 + {vpc}, 1
       FROM generate_series({first}, {first} + {count} - 1) AS n, generate_series(0, 1) AS place
       WHERE place = 0 OR n % 50 = 0""",
)
_STATES = (
    # of the first project thousands wait, of the second one does
    """UPDATE instances SET state = 'BUILDING' WHERE id IN (
         SELECT lpad(to_hex(n), 32, '0')::uuid FROM generate_series(19000, 20990) AS n)""",
    """UPDATE instances SET state = 'DELETING'
       WHERE id = lpad(to_hex(57000), 32, '0')::uuid""",
    """UPDATE instances SET state = 'ERROR', reason = 'its host is late'
       WHERE id IN (SELECT lpad(to_hex(n), 32, '0')::uuid
                    FROM unnest(array[300, 37500, 37501, 40007]) AS n)
          OR id >= lpad(to_hex(1000), 32, '0')::uuid AND id < lpad(to_hex(3000), 32, '0')::uuid""",
    """INSERT INTO pending (instance_id, host_id, host_revision)
       SELECT id, host_id, 1 FROM instances WHERE state <> 'ACTIVE'""",
)


@pytest.fixture(scope="module", params=["none", "old", "new"])
async def filled(
    request: pytest.FixtureRequest, postgres: PostgresServer
) -> AsyncIterator[AsyncEngine]:
    """A database with statistics that are there or not."""
    engine = create_engine(await postgres.create_database(fresh("db").replace("-", "_")))
    await migrate(engine)
    async with engine.begin() as connection:
        for table in ("instances", "vnics", "pending"):
            await connection.execute(text(f"ALTER TABLE {table} SET (autovacuum_enabled = false)"))
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        await fill(connection, EARLY, hosts=2)
        if request.param == "old":
            await connection.execute(text("ANALYZE"))
        for block in BLOCKS:
            await fill(connection, block, hosts=HOSTS)
        for statement in _STATES:
            await connection.execute(text(statement))
        if request.param == "new":
            await connection.execute(text("ANALYZE"))
    yield engine
    await engine.dispose()


async def fill(connection: AsyncConnection, block: Block, hosts: int) -> None:
    values = {name: getattr(block, name) for name in Block.__slots__} | {"hosts": hosts}
    for statement in _FILL:
        await connection.execute(text(statement.format(**values)))


def u(number: int) -> UUID:
    return UUID(int=number)


def listings() -> Iterator[dict[str, object]]:
    """The filters of every list of instances by up to three of them."""
    values: dict[str, tuple[object, ...]] = {
        "name": ("i-300", "nobody"),
        "kind": ("container", "vm"),
        "state": ("ACTIVE", "BUILDING", "ERROR", "DELETING"),
        "host_id": (u(1), u(77)),
        "project_id": (u(1), u(2)),
        "vpc_id": (u(1), u(2), u(4)),
    }
    for size in range(4):
        for names in itertools.combinations(values, size):
            for chosen in itertools.product(*(values[name] for name in names)):
                yield dict(zip(names, chosen, strict=True))


async def read(connection: AsyncConnection, query: listing.Query) -> float:
    """Rows that the query's plan reads, in tables and indexes."""
    driver = await driver_of(connection)
    statement, values = query
    compiled = statement.compile(dialect=connection.dialect)
    given = compiled.construct_params(values)
    return await rows_read(driver, str(compiled), *(given[at] for at in compiled.positiontup or []))


async def rows_read(driver: Any, query: str, *values: object) -> float:
    """Likewise."""
    found = await driver.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", *values)
    return sum(rows_of(node) for node in nodes(found[0]["Plan"]))


def rows_of(scan: dict[str, Any]) -> float:
    if "Relation Name" not in scan and "Index Name" not in scan:
        return 0
    passed_over = ("Rows Removed by Filter", "Rows Removed by Index Recheck")
    rows = scan["Actual Rows"] + sum(scan.get(name, 0) for name in passed_over)
    return float(rows * scan["Actual Loops"])


def most_read(filters: dict[str, object]) -> int:
    """A few rows for each of the page, but of a host all that it has, and of those that wait for
    something also those that wait for something else."""
    if "host_id" in filters:
        return 5 * ON_ONE_HOST
    return MOST_READ + (2 * WAITING if filters.get("state") in ("BUILDING", "DELETING") else 0)


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_little_is_read_for_a_page_of_instances(filled: AsyncEngine, mode: str) -> None:
    async with filled.connect() as connection:
        await connection.execute(text(f"SET plan_cache_mode = {mode}"))
        for filters, after in itertools.product(listings(), DEEP):
            query = listing.instances_query(filters, objects.Page(after, PAGE))

            rows = await read(connection, query)

            assert rows <= most_read(filters), (filters, after, str(query[0]))


@pytest.mark.parametrize("filled", ["new"], indirect=True)
async def test_a_page_of_instances_has_what_matches_once(filled: AsyncEngine) -> None:
    async with filled.connect() as connection:
        for filters in listings():
            made, vnics = schema.instances, schema.vnics.c
            matching = select(made.c.id)
            for name, value in filters.items():
                if name == "vpc_id":
                    has = exists().where(vnics.instance_id == made.c.id, vnics.vpc_id == value)
                    matching = matching.where(has)
                else:
                    matching = matching.where(made.c[name] == value)
            ids = sorted((await connection.execute(matching)).scalars())
            for after in DEEP:
                query = listing.instances_query(filters, objects.Page(after, PAGE))

                found = [row.id for row in await connection.execute(*query)]

                assert found == [one for one in ids if after is None or one > after][:PAGE]


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_little_is_read_for_a_page_of_vnics(filled: AsyncEngine, mode: str) -> None:
    ip = IPv4Address("10.0.0.0") + 2 * 37_000
    few: tuple[dict[str, object], ...] = (
        {},
        {"instance_id": u(37_000)},
        {"ip": ip},
        {"ip": ip, "ip6": ip},
    )
    projects: tuple[dict[str, object], ...] = ({}, {"project_id": u(1)}, {"project_id": u(2)})
    networks = [listing.Network(4096 + vpc, IPv4Network("0.0.0.0/0")) for vpc in (1, 2, 3, 4)]
    async with filled.connect() as connection:
        await connection.execute(text(f"SET plan_cache_mode = {mode}"))
        for filters, project, after in itertools.product(few, projects, DEEP):
            query = listing.vnics_query(filters | project, objects.Page(after, PAGE))
            assert await read(connection, query) <= MOST_READ, str(query[0])
        places = (None, UUID(bytes=ip_bytes(ip)))
        for filters, network, place in itertools.product(few, networks, places):
            query = listing.addresses_query(network, filters, objects.Page(place, PAGE))
            assert await read(connection, query) <= MOST_READ, str(query[0])


async def test_little_is_read_for_a_page_of_routes(filled: AsyncEngine) -> None:
    """A gateway may start while a VPC is being filled."""
    hosts = text(
        "INSERT INTO hosts (id, name, vtep, capacity) SELECT lpad(to_hex(n), 32, '0')::uuid,"
        " 'h' || n, inet '172.16.0.0' + n, 1000 FROM generate_series(0, 299) AS n"
    )
    limit = 20
    async with filled.begin() as connection:
        await connection.execute(hosts)
    async with filled.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.execute(route_pages.BEGIN)
        for vpc, after in itertools.product(
            range(1, 6), (b"", ip_bytes(IPv4Address("10.0.0.0") + 2 * 37_000))
        ):
            query = route_pages.page_query(4096 + vpc, after, b"", limit)
            assert await rows_read(driver, query) <= 2 * limit + HOSTS, query
        await driver.execute("ROLLBACK")
