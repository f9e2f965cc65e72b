"""Pages of routes as the controller reads them from PostgreSQL."""

from collections.abc import AsyncIterator
from ipaddress import ip_address

import pytest
from api.client import fresh
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.programming.metrics import Metrics
from achelous_controller.programming.snapshots import Snapshots
from achelous_controller.store.database import create_engine
from achelous_controller.store.migrate import migrate
from achelous_lab.rundir import RunDir
from achelous_lab.servers.nats import NatsServer
from achelous_lab.servers.postgres import PostgresServer
from achelous_shared.bus import Bus
from achelous_shared.bus_roles import Role
from achelous_shared.messages import SnapshotReply, SnapshotRequest, decode, encode
from achelous_shared.routes import RouteOp, Routes, ip_bytes, ip_of, mac_of, unpack

VNI, OTHER = 4096, 4097
ADDRESSES = ["10.0.0.1", "10.0.0.3", "10.0.1.0", "172.16.0.9", "2001:db8::1", "2001:db8::2"]
"""With a route each, in order; 10.0.0.2 is withdrawn."""

FILL = (
    "SET session_replication_role = replica",
    """INSERT INTO hosts (id, name, vtep, capacity)
       SELECT gen_random_uuid(), 'h' || n, inet '198.18.0.0' + n, 9 FROM generate_series(1, 7) n""",
    """INSERT INTO vpcs (id, project_id, name, vni, revision)
       VALUES (gen_random_uuid(), gen_random_uuid(), 'large', 4096, 40),
              (gen_random_uuid(), gen_random_uuid(), 'other', 4097, 7)""",
)
VNIC = """
    INSERT INTO vnics (id, instance_id, subnet_id, project_id, vpc_id, host_id, position, ip, mac,
                       vni, revision, withdrawn)
    SELECT gen_random_uuid(), v.id, v.id, v.project_id, v.id, h.id, 0,
           CAST(CAST(:ip AS text) AS inet),
           2199023255552 + CAST(:n AS int), 4096, 30 + CAST(:n AS int), :withdrawn
    FROM vpcs AS v, hosts AS h WHERE v.vni = 4096 AND h.vtep = inet '198.18.0.1' + CAST(:n AS int)
"""


@pytest.fixture(scope="module")
async def postgres() -> AsyncIterator[PostgresServer]:
    with RunDir.create() as directory:
        async with PostgresServer(directory.subdir("pg"), fsync=False) as server:
            yield server


@pytest.fixture
async def engine(postgres: PostgresServer) -> AsyncIterator[AsyncEngine]:
    """A database with one VPC whose rows were written in the order of nothing."""
    engine = create_engine(await postgres.create_database(fresh("snapshots").replace("-", "_")))
    await migrate(engine)
    async with engine.begin() as connection:
        for statement in FILL:
            await connection.execute(text(statement))
        for n, ip in enumerate([*reversed(ADDRESSES), "10.0.0.2"]):
            row = {"n": n, "ip": ip, "withdrawn": ip == "10.0.0.2"}
            await connection.execute(text(VNIC), row)
    yield engine
    await engine.dispose()


@pytest.fixture
async def snapshots(engine: AsyncEngine, run_dir: RunDir) -> AsyncIterator[Snapshots]:
    async with (
        NatsServer(run_dir.subdir("nats")) as server,
        Bus.connect(server.url(Role.CONTROLLER), role=Role.CONTROLLER, name="test") as bus,
    ):
        yield Snapshots(engine, bus, Metrics(CollectorRegistry()))


async def ask(
    snapshots: Snapshots, vni: int = VNI, *, after: str = "", until: str = "", limit: int = 100
) -> SnapshotReply:
    request = SnapshotRequest(
        vni=vni,
        after=ip_bytes(after) if after else b"",
        until=ip_bytes(until) if until else b"",
        limit=limit,
    )
    return decode(await snapshots.routes(encode(request)), SnapshotReply)


def addresses(reply: SnapshotReply) -> list[str]:
    return [str(ip_of(entry["ip"].tobytes())) for entry in unpack(reply.entries)]


async def test_a_page_has_every_column_of_every_route(snapshots: Snapshots) -> None:
    reply = await ask(snapshots)

    entries: Routes = unpack(reply.entries)
    assert (reply.vni, reply.revision, reply.done, reply.error) == (VNI, 40, True, None)
    assert addresses(reply) == ADDRESSES
    assert (entries["op"] == RouteOp.UPSERT).all()
    assert entries["revision"].tolist() == [35, 34, 33, 32, 31, 30]
    assert [mac_of(mac.tobytes()) for mac in entries["mac"]] == [
        f"02:00:00:00:00:0{n}" for n in (5, 4, 3, 2, 1, 0)
    ]
    vteps = [str(ip_address(int(vtep))) for vtep in entries["vtep"]]
    assert vteps == [f"198.18.0.{n}" for n in (6, 5, 4, 3, 2, 1)]


async def test_pages_follow_each_other_to_the_end_of_the_vpc(snapshots: Snapshots) -> None:
    found: list[str] = []
    done = False
    while not done:
        reply = await ask(snapshots, after=found[-1] if found else "", limit=4)
        found += addresses(reply)
        done = reply.done
    assert found == ADDRESSES


async def test_the_ends_of_each_family_are_told(snapshots: Snapshots, engine: AsyncEngine) -> None:
    dual_stack = "UPDATE vnics SET ip6 = '2001:db8::9' WHERE host(ip) = '10.0.0.3'"
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM vnics WHERE family(ip) = 6"))
        await connection.execute(text(dual_stack))
    reply = await ask(snapshots, limit=1)
    assert [tuple(str(ip_of(end)) for end in span) for span in reply.spans] == [
        ("10.0.0.1", "172.16.0.9"),
        ("2001:db8::9", "2001:db8::9"),
    ]


async def test_a_range_ends_where_it_was_asked_to(snapshots: Snapshots) -> None:
    reply = await ask(snapshots, after="10.0.0.1", until="10.0.1.0")
    assert (addresses(reply), reply.done) == (["10.0.0.3", "10.0.1.0"], True)


async def test_a_vpc_without_routes_and_one_that_is_not(snapshots: Snapshots) -> None:
    for vni, revision in ((OTHER, 7), (99, 0)):
        reply = await ask(snapshots, vni)
        assert (reply.vni, reply.revision, reply.entries, reply.done, reply.spans) == (
            *(vni, revision, b"", True, ()),
        )


async def test_an_address_that_is_none_is_refused(snapshots: Snapshots) -> None:
    data = await snapshots.routes(encode(SnapshotRequest(vni=VNI, after=b"x", limit=9)))
    assert decode(data, SnapshotReply).error == "after has 1 bytes, not 16 or none"
