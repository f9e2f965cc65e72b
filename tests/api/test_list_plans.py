"""Whatever a list is filtered by, PostgreSQL reads it from an index."""

import itertools
import json
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Network, ip_address
from typing import Any
from uuid import UUID

import pytest
from api.client import fresh
from api.plans import filled_in, nodes
from sqlalchemy import Select, TextClause, text
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.store import allocation, counts, listing, objects, schema
from achelous_controller.store.database import create_engine, driver_of
from achelous_controller.store.migrate import migrate
from achelous_lab.servers.postgres import PostgresServer
from achelous_shared.routes import ip_bytes

ROWS = 60_000
VPCS = 20
AFTER = UUID(int=ROWS // 2)

_FILL = (
    "SET session_replication_role = replica",
    """INSERT INTO instances (id, project_id, name, kind, host_id, state, host_revision,
                              accepted_at)
       SELECT lpad(to_hex(n), 32, '0')::uuid, lpad(to_hex(n % {vpcs}), 32, '0')::uuid,
              'i-' || n % 30000, 'container', lpad(to_hex(n % 300), 32, '0')::uuid, 'ACTIVE', 1,
              now()
       FROM generate_series(1, {rows}) AS n""",
    """INSERT INTO vnics (id, instance_id, subnet_id, project_id, vpc_id, host_id, position, ip,
                          mac, vni, revision)
       SELECT id, id, project_id, project_id, project_id, host_id, 0,
              inet '10.0.0.0' + row_number() OVER (), row_number() OVER (),
              4096 + ('x' || right(project_id::text, 4))::bit(16)::int, 1
       FROM instances""",
    "ANALYZE",
)


_SUBNET = (
    "INSERT INTO projects (id, name, quotas) VALUES (lpad('5', 32, '0')::uuid, 'p', '{{}}')",
    """INSERT INTO vpcs (id, project_id, name, vni)
       SELECT id, id, 'v', 4096 + 5 FROM projects""",
    """INSERT INTO subnets (id, project_id, vpc_id, name, cidr, gateway_ip, next_ip)
       SELECT id, id, id, 's', '10.0.0.0/8', '10.0.0.1', '{next_ip}' FROM projects""",
)


class _Inet(INET):
    """Addresses as literals."""

    def literal_processor(self, _: Dialect) -> Callable[[object], str]:
        return lambda address: f"inet '{address}'"


class _Dialect(PGDialect):
    colspecs = PGDialect.colspecs | {INET: _Inet}


@pytest.fixture(scope="module")
async def filled(postgres: PostgresServer) -> AsyncIterator[AsyncEngine]:
    """A database of sixty thousand instances, all of them ACTIVE containers."""
    engine = await create_filled(postgres)
    yield engine
    await engine.dispose()


async def create_filled(postgres: PostgresServer) -> AsyncEngine:
    engine = create_engine(await postgres.create_database(fresh("db").replace("-", "_")))
    await migrate(engine)
    async with engine.begin() as connection:
        for statement in _FILL:
            await connection.execute(text(statement.format(rows=ROWS, vpcs=VPCS)))
    return engine


async def plan(engine: AsyncEngine, query: Select[Any] | TextClause) -> list[dict[str, Any]]:
    """The nodes of the query's plan."""
    dialect = _Dialect()  # type: ignore[no-untyped-call]
    sql = str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    async with engine.connect() as connection:
        found = await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {sql}")
        document = found.scalar_one()
    if isinstance(document, str):
        document = json.loads(document)
    return list(nodes(document[0]["Plan"]))


async def test_a_hosts_instances_are_found_from_its_vnics_though_statistics_are_old(
    postgres: PostgresServer,
) -> None:
    """From when few hosts had all instances, as they are while a database is being filled."""
    engine = await create_filled(postgres)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("ALTER TABLE vnics SET (autovacuum_enabled = false)"))
            few = "UPDATE vnics SET host_id = lpad((mac % 2)::text, 32, '0')::uuid"
            await connection.execute(text(few))
            await connection.execute(text("ANALYZE vnics"))
        of_host, of_project = {"host_id": UUID(int=1)}, {"project_id": UUID(int=5)}
        for filters, after in itertools.product((of_host, of_host | of_project), (None, AFTER)):
            query = filled_in(listing.instances_query(filters, objects.Page(after, 100)))

            reads = {node["Relation Name"]: node for node in await scans(engine, query)}

            assert "= ANY" in reads["instances"].get("Index Cond", "")
            assert "Filter" not in reads["vnics"]
    finally:
        await engine.dispose()


@pytest.mark.parametrize("place", [None, "10.0.0.77", "10.0.200.0"])
@pytest.mark.parametrize("vpc", [0, 5, VPCS - 1])
async def test_a_subnets_page_reads_its_vnics_and_no_others(
    filled: AsyncEngine, vpc: int, place: str | None
) -> None:
    """In order of address from the place on where the page before ended: nothing is sorted."""
    after = None if place is None else UUID(bytes=ip_bytes(place))
    network = listing.Network(4096 + vpc, IPv4Network("10.0.0.0/8"))
    query = filled_in(listing.addresses_query(network, {}, objects.Page(after, 100)))

    found = await plan(filled, query)

    (scan,) = [node for node in found if "Relation Name" in node]
    assert {node["Node Type"] for node in found} == {"Limit", "Index Scan", "Result"}
    assert scan["Index Name"] == "vnics_vni_ip_key"
    assert place is None or str(ip_address(place) + 1) in scan["Index Cond"]


async def test_of_a_subnet_more_filters_find_their_index(filled: AsyncEngine) -> None:
    network = listing.Network(4101, IPv4Network("10.0.0.0/8"))
    for filters, index in (
        ({"ip": ip_address("10.0.0.77")}, "vnics_vni_ip_key"),
        ({"ip6": ip_address("fd00::77")}, "vnics_vni_ip6_idx"),
        ({"instance_id": UUID(int=77)}, "vnics_instance_id_idx"),
    ):
        query = filled_in(listing.addresses_query(network, filters, objects.Page(None, 100)))

        assert index in {node.get("Index Name") for node in await plan(filled, query)}, filters


async def test_instances_in_error_are_read_and_no_others_that_wait(filled: AsyncEngine) -> None:
    query = filled_in(listing.instances_query({"state": "ERROR"}, objects.Page(AFTER, 100)))

    indexes = {scan["Index Name"] for scan in await scans(filled, query)}

    assert indexes == {"instances_reason_idx", "instances_pkey"}


async def scans(engine: AsyncEngine, query: Select[Any]) -> list[dict[str, Any]]:
    """The nodes of its `plan` that read a table."""
    return [node for node in await plan(engine, query) if "Relation Name" in node]


async def test_who_was_not_late_becomes_active_on_its_page(filled: AsyncEngine) -> None:
    """No index is told: HOT."""
    changed = (
        "UPDATE instances SET state = 'ACTIVE', reason = NULL, active_at = now()"
        " WHERE id <= lpad(to_hex(50), 32, '0')::uuid"
    )
    counts = text(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE relname = 'instances'"
    )
    async with filled.connect() as connection:
        await connection.execute(text(changed))
        updated, hot = (await connection.execute(counts)).one()
        await connection.rollback()

    assert (updated, hot) == (50, 50)


async def test_what_there_is_is_counted_without_reading_it(filled: AsyncEngine) -> None:
    found = await plan(filled, counts.COUNTS)

    instances_read, vnics_read = (
        [node for node in found if node.get("Relation Name") == table]
        for table in ("instances", "vnics")
    )
    assert [node["Index Name"] for node in instances_read] == ["instances_pkey"]
    assert [node["Index Name"] for node in vnics_read] == ["vnics_instance_id_idx"]
    assert all("Index Cond" in node for node in instances_read + vnics_read)


async def test_nothing_is_passed_over_to_reach_a_page(filled: AsyncEngine) -> None:
    query = objects.page_query(schema.instances, None, {}, objects.Page(AFTER, 100))

    assert "OFFSET" not in str(query)
    (page,) = [node for node in await plan(filled, query) if "Index Cond" in node]
    assert page["Index Name"] == "instances_pkey"


async def test_a_free_address_is_found_by_a_walk_that_ends_at_it(filled: AsyncEngine) -> None:
    """However many addresses are taken before the place where the last search ended."""
    last_ended = ip_address("10.0.0.0") + ROWS - 10
    async with filled.begin() as connection:
        for statement in _SUBNET:
            await connection.execute(text(statement.format(next_ip=last_ended)))
        driver = await driver_of(connection)
        onwards = allocation.IPV4.onwards.format("$1", "$2")
        await driver.execute(allocation.WALKING)
        await driver.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        explained = f"EXPLAIN (ANALYZE, FORMAT JSON) {onwards}"
        found = await driver.fetchval(explained, [UUID(int=5)], [2])
        await connection.rollback()

    scans = [node for node in nodes(found[0]["Plan"]) if node.get("Relation Name") == "vnics"]
    (scan,) = scans
    assert scan["Node Type"].startswith("Index")
    assert scan["Actual Rows"] <= 10
