"""A platform of one VPC with many routes: servers, a controller, and a gateway to be measured."""

import asyncio
import itertools
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from achelous_lab import syscalls
from achelous_lab.api import Api
from achelous_lab.netns.network import Network
from achelous_lab.netns.underlay import UNDERLAY_DEVICE
from achelous_lab.process import Process
from achelous_lab.rundir import RunDir
from achelous_lab.servers.nats import NatsServer
from achelous_lab.servers.postgres import PostgresServer
from achelous_shared.bpf import ensure_bpffs
from achelous_shared.bus_roles import Role

BPF_DIR: Final = Path(os.environ.get("ACHELOUS_BPF_DIR", Path(__file__).parents[2] / "build/bpf"))
VNI: Final = 4096
HOSTS: Final = 2000
REVISION: Final = 1000
"""Of the VPC at the start; each route has a lower one."""

_FIRST: Final = 0x0A000001

_FILL: Final = (
    "SET session_replication_role = replica",  # no foreign keys: the rows are made to fit
    """INSERT INTO hosts (id, name, vtep, capacity)
       SELECT gen_random_uuid(), 'h' || n, inet '198.18.4.0' + n, 100000
       FROM generate_series(1, {hosts}) AS n""",
    """INSERT INTO vpcs (id, project_id, name, vni, revision)
       VALUES (gen_random_uuid(), gen_random_uuid(), 'large', {vni}, {revision})""",
    """INSERT INTO vnics (id, instance_id, subnet_id, project_id, vpc_id, host_id, position, ip,
                          mac, vni, revision)
       SELECT gen_random_uuid(), v.id, v.id, v.project_id, v.id, h.id, 0, inet '10.0.0.1' + n,
              2199023255552 + n, {vni}, 1 + n % {revision}
       FROM vpcs AS v, generate_series(0, {routes} - 1) AS n
       JOIN (SELECT id, row_number() OVER () - 1 AS at FROM hosts) AS h ON h.at = n * 7 % {hosts}
       ORDER BY n""",
    "ANALYZE",
)


def addresses(routes: int) -> NDArray[np.uint8]:
    """(routes, 16): the addresses that have a route."""
    ips = np.zeros((routes, 16), np.uint8)
    ips[:, 10:12] = 0xFF
    ips[:, 12:] = np.arange(_FIRST, _FIRST + routes, dtype=">u4").view(np.uint8).reshape(-1, 4)
    return ips


@dataclass(frozen=True, slots=True)
class World:
    """Servers that run, and a controller whose database holds the routes."""

    run_dir: RunDir
    nats: NatsServer
    postgres: PostgresServer
    controller: Process
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @asynccontextmanager
    async def gateway(self, *, dataplane: bool) -> AsyncIterator["Gateway"]:
        """A registered gateway that has not been started; gone at the end with what it pinned."""
        async with AsyncExitStack() as stack:
            vtep = IPv4Address("198.18.1.0") + next(self.numbers)
            settings = {"DATAPLANE": "none"}
            if dataplane:
                network = await stack.enter_async_context(Network(self.run_dir))
                node = await network.underlay.node("gateway", vtep)
                bpffs = self.run_dir.subdir("bpffs")
                ensure_bpffs(bpffs)
                stack.callback(syscalls.unmount, bpffs)
                settings = {
                    "BPF_DIR": str(BPF_DIR),
                    "BPFFS": str(bpffs / "gateway"),
                    "NETNS": str(node.namespace.path),
                    "UNDERLAY_DEVICE": UNDERLAY_DEVICE,
                }
            gateway = await self._register(vtep, settings)
            try:
                yield gateway
            finally:
                await gateway.process.stop()

    async def _register(self, vtep: IPv4Address, settings: dict[str, str]) -> "Gateway":
        address = (self.run_dir.path / f"controller-{self.controller.pid}.http").read_text()
        token = (self.run_dir.path / "operator.token").read_text().strip()
        async with Api(lambda: [address.strip()], token) as api:
            registered = await api.post("/gateways", {"name": f"g-{vtep}", "vtep": str(vtep)})
        gateway_id = UUID(registered["id"])
        environment = {
            "NATS_URL": self.nats.url(Role.GATEWAY),
            "RUN_DIR": str(self.run_dir.path),
            "GATEWAY_ID": str(gateway_id),
        } | settings
        address_file = self.run_dir.path / f"gateway-{gateway_id}.http"
        process = Process(
            "gateway",
            [sys.executable, "-m", "achelous_gateway"],
            log=self.run_dir.log("gateway"),
            env={f"ACHELOUS_{key}": value for key, value in environment.items()},
            ready=lambda: _ready(address_file),
        )
        return Gateway(gateway_id, process)


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway's process; it has started when it serves."""

    id: UUID
    process: Process


@asynccontextmanager
async def world(routes: int) -> AsyncIterator[World]:
    """A world whose VPC ``VNI`` has ``routes`` routes."""
    with RunDir.create() as run_dir:
        async with (
            NatsServer(run_dir.subdir("nats")) as nats,
            PostgresServer(run_dir.subdir("pg"), fsync=False) as postgres,
        ):
            controller = Process(
                "controller",
                [sys.executable, "-m", "achelous_controller"],
                log=run_dir.log("controller"),
                env={
                    "ACHELOUS_NATS_URL": nats.url(Role.CONTROLLER),
                    "ACHELOUS_DSN": postgres.dsn(),
                    "ACHELOUS_RUN_DIR": str(run_dir.path),
                    "ACHELOUS_OPERATOR_TOKEN_FILE": str(run_dir.path / "operator.token"),
                },
                ready=lambda: _ready(run_dir.path / f"controller-{controller.pid}.http"),
            )
            await controller.start()
            try:
                await _fill(postgres.dsn(), routes)
                yield World(run_dir, nats, postgres, controller)
            finally:
                await controller.stop()


async def _ready(address_file: Path) -> bool:
    """Without an HTTP client: making one costs more than what is measured meanwhile can spare."""
    try:
        host, _, port = address_file.read_text().strip().rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return (await asyncio.wait_for(reader.readline(), 2)).startswith(b"HTTP/1.1 200")
    finally:
        writer.close()


async def _fill(dsn: str, routes: int) -> None:
    engine = create_async_engine(dsn)
    try:
        async with engine.begin() as connection:
            for statement in _FILL:
                sql = statement.format(hosts=HOSTS, vni=VNI, revision=REVISION, routes=routes)
                await connection.execute(text(sql))
    finally:
        await engine.dispose()


def say(text: str) -> None:
    """Progress, on standard error."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    return sum(_stat(pid)[_TIMES_AT : _TIMES_AT + 2]) / os.sysconf("SC_CLK_TCK")


def family_cpu_seconds(pid: int) -> float:
    """That of a process and its children, those that ended included."""
    ticks = sum(_stat(pid)[_TIMES_AT : _TIMES_AT + 4])
    for other in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            fields = _stat(int(other.name))
            ticks += sum(fields[_TIMES_AT : _TIMES_AT + 2]) if fields[_PARENT_AT] == pid else 0
    return ticks / os.sysconf("SC_CLK_TCK")


_PARENT_AT: Final = 1
_TIMES_AT: Final = 11
"""User, system, and the same of children that were waited for."""


def _stat(pid: int) -> list[int]:
    """Numbers of /proc/PID/stat after the name; the state's letter is 0."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [0, *map(int, fields[1:])]


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def mapped_mib(pid: int) -> float:
    """Of its resident memory, that of eBPF maps: counted among the kernel's too."""
    total, of_map = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            of_map = line.endswith("anon_inode:bpf-map")
        elif name == "Rss:" and of_map:
            total += int(rest.split()[0])
    return total / 2**10


def maps_mib(pid: int) -> float:
    """Kernel memory of the eBPF maps that a process has open."""
    infos = (info.read_text() for info in Path(f"/proc/{pid}/fdinfo").iterdir())
    maps = (text for text in infos if "map_id:" in text)
    held = (dict(line.split(":", 1) for line in text.splitlines() if ":" in line) for text in maps)
    return sum({one["map_id"]: int(one["memlock"]) for one in held}.values()) / 2**20
