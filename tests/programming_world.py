"""For tests of programming: controllers on a real PostgreSQL and NATS, with a fleet of fakes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from api.client import Api, Json, fresh, instance
from programming_fakes import FakeGateway, FakeHost, Table
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.api.context import Services
from achelous_controller.app import create_app
from achelous_controller.programming.service import Programming
from achelous_controller.settings import ControllerSettings
from achelous_controller.store.bootstrap import first_token
from achelous_controller.store.database import Database, create_engine
from achelous_controller.store.migrate import migrate
from achelous_lab.rundir import RunDir
from achelous_lab.servers.nats import NatsServer
from achelous_lab.servers.postgres import PostgresServer
from achelous_lab.waiting import wait_until
from achelous_shared.bus import Bus
from achelous_shared.bus_roles import Role
from achelous_shared.routes import ip_bytes


class Controller:
    """The programming of one controller, as a task of the test's process."""

    def __init__(self, programming: Programming, registry: CollectorRegistry, task: Any) -> None:
        self.programming = programming
        self.registry = registry
        self._task = task

    @property
    def leading(self) -> bool:
        return bool(self.metric("programming_leader"))

    def metric(self, name: str, **labels: str) -> float:
        """0 as long as it was not set."""
        return self.registry.get_sample_value(name, labels) or 0.0

    async def crash(self) -> None:
        """End at once, whatever it is doing."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class World:
    """A database and a bus of the test's own, the API on them, and who was added."""

    def __init__(
        self, stack: AsyncExitStack, nats: NatsServer, dsn: str, engine: AsyncEngine, api: Api
    ) -> None:
        self._stack = stack
        self._tasks: list[asyncio.Task[None]] = []
        self.nats = nats
        self.dsn = dsn
        self.engine = engine
        self.api = api
        """An operator's client."""
        self.gateways: list[FakeGateway] = []
        self.hosts: list[FakeHost] = []

    # who takes part

    async def add_gateway(self) -> FakeGateway:
        """Registered, and reporting."""
        made = await self.api.make("/gateways", name=fresh("g"), vtep=_vtep(self.fleet_size()))
        bus = await self.bus(Role.GATEWAY)
        gateway = FakeGateway(UUID(made["id"]), made["name"], bus)
        self.gateways.append(gateway)
        self.run(gateway.run())
        return gateway

    async def add_host(self) -> FakeHost:
        """Registered, and reporting."""
        vtep = _vtep(self.fleet_size())
        made = await self.api.make("/hosts", name=fresh("h"), vtep=vtep, capacity=100_000)
        host = FakeHost(UUID(made["id"]), made["name"], await self.bus(Role.VSWITCH))
        self.hosts.append(host)
        self.run(host.run())
        return host

    def fleet_size(self) -> int:
        return len(self.gateways) + len(self.hosts)

    async def add_controller(
        self, *, building_timeout_s: float = 60.0, lead: bool = True
    ) -> Controller:
        """One that leads when nobody else does, if it may ``lead``.

        The first that may makes the streams, which the gateways then follow.
        """
        engine, registry = create_engine(self.dsn), CollectorRegistry()
        self._stack.push_async_callback(engine.dispose)
        settings = ControllerSettings(
            nats_url="", dsn=self.dsn, building_timeout_s=building_timeout_s, lead=lead
        )
        programming = Programming(engine, settings, await self.bus(Role.CONTROLLER), registry)
        controller = Controller(programming, registry, self.run(programming.run()))
        if lead:
            async with asyncio.timeout(10):
                for gateway in self.gateways:
                    await gateway.following.wait()
        return controller

    async def bus(self, role: Role) -> Bus:
        connecting = Bus.connect(self.nats.url(role), role=role, name="test")
        return await self._stack.enter_async_context(connecting)

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Until the end of the test, which fails if this does."""
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        if failures:
            raise ExceptionGroup("tasks of the test's world failed", failures)

    # what tenants do

    async def subnet(self, cidr: str = "10.0.0.0/16") -> Json:
        """Of a VPC and a project of its own."""
        project = await self.api.project(instances=50_000, vnics=50_000)
        return await self.api.subnet(await self.api.vpc(project), cidr)

    async def instances(self, subnet: Json, count: int, host: FakeHost | None = None) -> list[str]:
        """Ask for so many in one call; their ids."""
        more = {} if host is None else {"host_id": str(host.id)}
        bodies = [instance(subnet, **more) for _ in range(count)]
        made = await self.api.make("/instances:batch", instances=bodies)
        return [one["id"] for one in made["instances"]]

    async def show(self, instance_id: str) -> Json:
        return await self.api.get(f"/instances/{instance_id}")

    async def delete(self, instance_ids: Iterable[str]) -> None:
        for instance_id in instance_ids:
            reply = await self.api.delete(f"/instances/{instance_id}")
            assert reply.status_code == 202

    # what becomes of it

    async def states(self) -> Counter[str]:
        """Number of instances in each state."""
        async with self.engine.connect() as connection:
            rows = await connection.execute(text("SELECT state FROM instances"))
            return Counter(rows.scalars())

    async def until_active(self, *, timeout: float = 10.0) -> float:
        """Until every instance is ACTIVE; seconds."""
        return await self.until_states({"ACTIVE"}, timeout=timeout)

    async def until_states(self, wanted: set[str], *, timeout: float = 10.0) -> float:
        """Until every instance is in one of these states, none in others; seconds."""
        last: Counter[str] = Counter()

        async def reached() -> bool:
            nonlocal last
            last = await self.states()
            return last.keys() <= wanted

        return await wait_until(reached, lambda: f"{wanted}, not {last}", timeout=timeout)

    async def until_reason(self, instance_id: str, part: str, *, timeout: float = 10.0) -> Json:
        """Until the instance says why it is late; what it says."""
        last: Json = {}

        async def said() -> bool:
            nonlocal last
            last = await self.show(instance_id)
            return part in (last["reason"] or "")

        await wait_until(said, lambda: f"{part!r}: {last}", timeout=timeout)
        return last

    async def routes(self) -> dict[int, tuple[int, Table]]:
        """Revision and routes of each VPC, as the database has them."""
        async with self.engine.connect() as connection:
            vpcs = await connection.execute(text("SELECT vni, revision FROM vpcs"))
            found: dict[int, tuple[int, Table]] = {vni: (revision, {}) for vni, revision in vpcs}
            rows = await connection.execute(
                text(
                    "SELECT v.vni, host(v.ip), host(h.vtep), v.mac, v.revision FROM vnics AS v"
                    " JOIN hosts AS h ON h.id = v.host_id WHERE NOT v.withdrawn"
                )
            )
            for vni, ip, vtep, mac, revision in rows:
                route = (int(IPv4Address(vtep)), int(mac).to_bytes(6, "big"), revision)
                found[vni][1][ip_bytes(ip)] = route
        return found

    async def assert_tables_equal(self) -> None:
        """Every gateway has the database's routes and revisions, once it had time to."""
        wanted = {vni: wanted for vni, wanted in (await self.routes()).items() if wanted[0]}

        def tables(gateway: FakeGateway) -> dict[int, tuple[int, Table]]:
            return {vni: (gateway.revisions[vni], gateway.tables[vni]) for vni in wanted}

        for gateway in self.gateways:
            await wait_until(
                lambda gateway=gateway: tables(gateway) == wanted,  # type: ignore[misc]
                f"the tables of {gateway.name} to be the database's",
            )


def _vtep(number: int) -> str:
    return str(IPv4Address("198.18.0.1") + number)


@asynccontextmanager
async def world_in(postgres: PostgresServer, run_dir: RunDir) -> AsyncIterator[World]:
    """On a database of its own and a bus of its own; nobody takes part yet."""
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(NatsServer(run_dir.subdir("nats")))
        dsn = await postgres.create_database(fresh("programming").replace("-", "_"))
        engine = create_engine(dsn)
        stack.push_async_callback(engine.dispose)
        await migrate(engine)
        token_file = run_dir.path / "operator.token"
        await first_token(engine, token_file)
        app = create_app(Services(Database(engine), database_problem=None), CollectorRegistry())
        http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://achelous", timeout=60
        )
        await stack.enter_async_context(http)
        api = Api(http, token_file.read_text().strip())
        connections = await stack.enter_async_context(AsyncExitStack())  # outlive the tasks
        world = World(connections, nats, dsn, engine, api)
        stack.push_async_callback(world.end)
        yield world


def stored_streams(nats: NatsServer) -> Path:
    """Where a server keeps its streams."""
    return nats._directory / "jetstream"
