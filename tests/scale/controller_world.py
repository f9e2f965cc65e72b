"""Controllers to be measured: servers, one or more controller processes, a large empty VPC."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import numpy as np
from scale.world import _ready
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from achelous_controller.domain.instances import InstanceSpec, Kind, VnicSpec, Wanted
from achelous_controller.domain.layout import laid_out
from achelous_controller.store import allocation, bulk, provisioning
from achelous_controller.store.database import Database, create_engine
from achelous_lab.api import Api
from achelous_lab.process import Process
from achelous_lab.rundir import RunDir
from achelous_lab.servers.nats import NatsServer
from achelous_lab.servers.postgres import PostgresServer
from achelous_lab.waiting import wait_until
from achelous_shared.bus_roles import Role

_HOSTS = """
    INSERT INTO hosts (id, name, vtep, capacity)
    SELECT gen_random_uuid(), 'h' || n, inet '198.18.4.0' + n, 100000
    FROM generate_series(1, :hosts) AS n
"""


@dataclass(slots=True)
class ControllerWorld:
    """Servers and controllers that run, and an empty /8 in a VPC without quotas."""

    nats: NatsServer
    postgres: PostgresServer
    controllers: list[Process]
    run_dir: RunDir
    token: str
    gateway: str
    hosts: list[UUID]
    project: str
    vpc: str
    subnet: str
    fleet_pid: int | None = None

    def urls(self) -> list[str]:
        """Of each controller."""
        return [f"http://{_address(self.run_dir, each)}" for each in self.controllers]

    def pids(self) -> dict[str, int]:
        """Of all parts whose CPU time counts; PostgreSQL's sessions are those that there are."""
        pids = {f"controller{n}": each.pid for n, each in enumerate(self.controllers)}
        pids["nats"] = self.nats.process.pid
        if self.fleet_pid is not None:
            pids["fleet"] = self.fleet_pid
        return pids

    async def execute(self, sql: str) -> list[Any]:
        """One statement outside of any transaction."""
        engine = create_async_engine(self.postgres.dsn(), isolation_level="AUTOCOMMIT")
        try:
            async with engine.connect() as connection:
                result = await connection.execute(text(sql))
                return list(result.all()) if result.returns_rows else []
        finally:
            await engine.dispose()

    async def settled(self, timeout: float) -> None:
        """Wait until no instance is pending."""
        query = "SELECT EXISTS (SELECT FROM pending)"

        async def none() -> bool:
            return not (await self.execute(query))[0][0]

        await wait_until(none, "all instances to be ACTIVE", timeout=timeout, interval=0.5)

    async def allocation_ms(self, times: int) -> dict[str, float]:
        """Time that the store takes to choose one free address of the /8."""
        engine = create_engine(self.postgres.dsn())
        database = Database(engine)
        took = []
        vnic = VnicSpec(UUID(self.subnet), None, None, ())
        spec = InstanceSpec("measured", Kind.VM, None, None, (vnic,))
        wanted = Wanted([spec], [datetime.now(UTC)], "")
        layout = laid_out(wanted)
        try:
            for _ in range(times):
                async with database.write(*provisioning.locking(None, wanted)) as connection:
                    begin = time.perf_counter()
                    await bulk.read(connection, allocation.reading(layout))
                    took.append((time.perf_counter() - begin) * 1e3)
        finally:
            await engine.dispose()
        p50, p99 = np.percentile(took, [50, 99]).tolist()
        return {"p50": round(p50, 2), "p99": round(p99, 2)}


def _address(run_dir: RunDir, controller: Process) -> str:
    return (run_dir.path / f"controller-{controller.pid}.http").read_text().strip()


@asynccontextmanager
async def controller_world(
    controllers: int, hosts: int, shared_buffers: str
) -> AsyncIterator[ControllerWorld]:
    """A world of as many controllers, with hosts registered."""
    with RunDir.create() as run_dir:
        async with (
            NatsServer(run_dir.subdir("nats")) as nats,
            PostgresServer(
                run_dir.subdir("pg"), fsync=False, shared_buffers=shared_buffers
            ) as postgres,
        ):
            running: list[Process] = []
            try:
                for number in range(controllers):
                    running.append(_controller(number, run_dir, nats, postgres))
                    await running[-1].start(timeout=60)
                yield await _fill(run_dir, nats, postgres, running, hosts)
            except BaseException:
                for log in sorted((run_dir.path / "logs").glob("*.log")):
                    sys.stderr.write(f"--- {log.name}\n{log.read_text()[-4000:]}\n")
                raise
            finally:
                await asyncio.gather(*(each.stop() for each in running))


def _controller(
    number: int, run_dir: RunDir, nats: NatsServer, postgres: PostgresServer
) -> Process:
    async def ready() -> bool:
        return await _ready(run_dir.path / f"controller-{process.pid}.http")

    process = Process(
        f"controller-{number}",
        [sys.executable, "-m", "achelous_controller"],
        log=run_dir.log(f"controller-{number}"),
        env={
            "ACHELOUS_NATS_URL": nats.url(Role.CONTROLLER),
            "ACHELOUS_DSN": postgres.dsn(),
            "ACHELOUS_RUN_DIR": str(run_dir.path),
            "ACHELOUS_OPERATOR_TOKEN_FILE": str(run_dir.path / "operator.token"),
        },
        ready=ready,
    )
    return process


async def _fill(
    run_dir: RunDir,
    nats: NatsServer,
    postgres: PostgresServer,
    controllers: list[Process],
    hosts: int,
) -> ControllerWorld:
    token = (run_dir.path / "operator.token").read_text().strip()
    async with Api(lambda: [_address(run_dir, controllers[0])], token) as api:
        quotas = {"instances": 10_000_000, "vnics": 10_000_000}
        project = await api.post("/projects", {"name": "large", "quotas": quotas})
        vpc = await api.post("/vpcs", {"name": "large", "project_id": project["id"]})
        subnet = await api.post(
            "/subnets", {"vpc_id": vpc["id"], "name": "large", "cidr": "10.0.0.0/8"}
        )
    world = ControllerWorld(
        nats, postgres, controllers, run_dir, token, str(uuid4()), [], project["id"],
        vpc["id"], subnet["id"],
    )  # fmt: skip
    await world.execute(_HOSTS.replace(":hosts", str(hosts)))
    async with Api(lambda: [_address(run_dir, controllers[0])], token) as api:
        gateway = await api.post("/gateways", {"name": "g", "vtep": "198.18.1.1"})
    world.gateway = gateway["id"]
    world.hosts = [row.id for row in await world.execute("SELECT id FROM hosts")]
    return world
