"""What telling hosts of changes costs: CPU time of the leader's part, PostgreSQL and NATS.

    PYTHONPATH=tests .venv/bin/python -m scale.measure_documents [--hosts 500] [--ports 750]

The publisher runs in this process on servers of its own, whose database is filled by SQL; nobody
reads the stream. Of each kind of change: messages and bytes published, and ms of CPU for a message.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import uvloop
from prometheus_client import CollectorRegistry
from scale.world import cpu_seconds, family_cpu_seconds, say
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.programming import outbox
from achelous_controller.programming.connections import session
from achelous_controller.programming.dispatcher import Dispatcher
from achelous_controller.programming.document_publisher import DocumentPublisher
from achelous_controller.programming.metrics import Metrics
from achelous_controller.programming.observer import Observer
from achelous_controller.programming.progress import Progress
from achelous_controller.programming.route_publisher import RoutePublisher
from achelous_controller.programming.streams import HOSTS
from achelous_controller.store import bulk
from achelous_controller.store.database import create_engine
from achelous_controller.store.migrate import migrate
from achelous_controller.store.outbox import hosts_given
from achelous_lab.rundir import RunDir
from achelous_lab.servers.nats import NatsServer
from achelous_lab.servers.postgres import PostgresServer
from achelous_lab.waiting import wait_until
from achelous_shared.bus import Bus
from achelous_shared.bus_roles import Role
from achelous_shared.stream_writer import Append, StreamWriter

_NETWORK = """
    INSERT INTO projects (id, name, quotas) VALUES (:project, 'p', '{}');
    INSERT INTO vpcs (id, project_id, name, vni) VALUES (:vpc, :project, 'v', 5);
    INSERT INTO subnets (id, project_id, vpc_id, name, cidr, gateway_ip, next_ip)
        VALUES (:subnet, :project, :vpc, 's', '10.0.0.0/8', '10.0.0.1', '10.0.0.2');
    INSERT INTO security_groups (id, project_id, vpc_id, name) VALUES (:group, :project, :vpc, 'g');
    INSERT INTO security_group_rules
        (id, security_group_id, egress, protocol, port_min, port_max, remote)
        SELECT gen_random_uuid(), :group, n % 2 = 0, 6, n, n, '10.0.0.0/8'
        FROM generate_series(1, 4) AS n;
    INSERT INTO hosts (id, name, vtep, capacity, revision)
        SELECT uuidv7(), 'h' || n, inet '198.18.4.0' + n, 100000, 1
        FROM generate_series(1, :hosts) AS n
"""
_PORTS = """
    WITH made AS (
        SELECT uuidv7() AS vnic, uuidv7() AS instance, h.host,
            :first + h.place * :ports + n AS number
        FROM unnest(CAST(:hosts AS uuid[])) WITH ORDINALITY AS h (host, place)
        CROSS JOIN generate_series(1, :ports) AS n
    ), instances AS (
        INSERT INTO instances
            (id, project_id, name, kind, host_id, state, host_revision, accepted_at)
        SELECT instance, :project, 'i-' || number, 'vm', host, 'ACTIVE', 1, now() FROM made
    ), links AS (
        INSERT INTO vnic_security_groups (vnic_id, security_group_id) SELECT vnic, :group FROM made
    )
    INSERT INTO vnics (id, instance_id, subnet_id, project_id, vpc_id, host_id, position, ip, mac,
        vni, revision)
    SELECT vnic, instance, :subnet, :project, :vpc, host, 0, inet '10.0.0.0' + number, number, 5, 1
    FROM made RETURNING id, host_id
"""


@dataclass
class Counted:
    """Bytes and messages that went to the stream."""

    messages: int = 0
    size: int = 0


class CountingWriter(StreamWriter):
    """Counts what is published on streams."""

    def __init__(self, writer: StreamWriter) -> None:
        self._writer = writer
        self.counted = Counted()

    @property
    def connected(self) -> bool:
        """As `StreamWriter`."""
        return self._writer.connected

    async def append(self, messages: Sequence[Append], *, timeout: float = 2.0) -> list[bool]:
        """As `StreamWriter`."""
        self.counted.messages += len(messages)
        self.counted.size += sum(len(one.data) for one in messages)
        return await self._writer.append(messages, timeout=timeout)


class Measuring:
    """A publisher, and the changes that it is given."""

    def __init__(
        self,
        engine: AsyncEngine,
        bus: Bus,
        writer: CountingWriter,
        connection: Any,
        nats: NatsServer,
        postgres: PostgresServer,
    ) -> None:
        self._engine, self._writer = engine, writer
        self._nats, self._postgres = nats, postgres
        self._ids: dict[str, Any] = {
            name: uuid4() for name in ("project", "vpc", "subnet", "group")
        }
        self._next = 10
        self.hosts: list[UUID] = []
        metrics = Metrics(CollectorRegistry())
        progress = Progress(connection, Observer(engine, bus, metrics), metrics, 60.0)
        self.publisher = DocumentPublisher(engine, bus, writer, metrics)
        self._dispatcher = Dispatcher(
            engine, connection, writer, RoutePublisher(writer, metrics, progress), self.publisher
        )

    async def fill(self, hosts: int, ports: int) -> None:
        """A VPC whose vNICs are spread evenly."""
        async with self._engine.begin() as connection:
            for statement in _NETWORK.split(";\n"):
                wanted = {
                    name: value
                    for name, value in (self._ids | {"hosts": hosts}).items()
                    if f":{name}" in statement
                }
                await connection.execute(text(statement), wanted)
            found = await connection.execute(text("SELECT id FROM hosts ORDER BY id"))
            self.hosts = list(found.scalars())
        for first in range(0, hosts, 20):
            await self.add(self.hosts[first : first + 20], ports)
        async with self._engine.execution_options(
            isolation_level="AUTOCOMMIT"
        ).connect() as connection:
            await connection.execute(text("VACUUM ANALYZE"))

    async def add(self, hosts: Sequence[UUID], each: int, *, tell: bool = False) -> None:
        """So many new vNICs on each of these hosts."""
        values = self._ids | {"hosts": list(hosts), "ports": each, "first": self._next}
        self._next += (len(hosts) + 2) * each
        async with self._engine.begin() as connection:
            new: dict[UUID, list[UUID]] = {}
            for vnic, host in await connection.execute(text(_PORTS), values):
                new.setdefault(host, []).append(vnic)
            if tell:
                query = text("SELECT id, revision FROM hosts WHERE id = ANY(:hosts)")
                changes = [
                    (host, revision + 1, 0, b"".join(vnic.bytes for vnic in new[host]))
                    for host, revision in await connection.execute(query, {"hosts": list(new)})
                ]
                await bulk.write(connection, (), hosts_given(changes))

    async def publish(self) -> dict[str, float]:
        """Until nothing is left; what it took."""
        counted = self._writer.counted = Counted()
        before = self._cpu()
        began = time.monotonic()
        while await self._dispatcher.step():
            pass
        took = time.monotonic() - began
        used = {name: after - before[name] for name, after in self._cpu().items()}
        return {"messages": counted.messages, "KiB": round(counted.size / 1024, 1)} | {
            f"{name}_ms": round(1e3 * seconds / max(counted.messages, 1), 3)
            for name, seconds in (used | {"elapsed": took}).items()
        }

    def _cpu(self) -> dict[str, float]:
        return {
            "leader": time.process_time(),
            "postgres": family_cpu_seconds(self._postgres.process.pid),
            "nats": cpu_seconds(self._nats.process.pid),
        }


@asynccontextmanager
async def _measuring() -> AsyncIterator[Measuring]:
    with RunDir.create() as run_dir:
        async with (
            NatsServer(run_dir.subdir("nats")) as nats,
            PostgresServer(run_dir.subdir("pg"), fsync=False, shared_buffers="512MB") as postgres,
            Bus.connect(nats.url(Role.CONTROLLER), role=Role.CONTROLLER, name="measured") as bus,
            bus.stream_writer() as writer,
        ):
            await bus.ensure_stream(HOSTS)
            await wait_until(lambda: writer.connected, "the connection for streams")
            engine = create_engine(await postgres.create_database("measured"))
            try:
                await migrate(engine)
                async with session(engine, "measured", outbox.SESSION) as connection:
                    await outbox.begin(connection)
                    yield Measuring(engine, bus, CountingWriter(writer), connection, nats, postgres)
            finally:
                await engine.dispose()


async def measure(hosts: int, ports: int) -> dict[str, dict[str, float]]:
    """Figures of each kind of change."""
    async with _measuring() as measuring:
        await measuring.fill(hosts, ports)
        say(f"{hosts} hosts of {ports} ports")
        found: dict[str, dict[str, float]] = {}
        measuring.publisher.repeat(measuring.hosts)
        found["all documents, whole"] = await measuring.publish()
        say(json.dumps(found))
        lone = []
        for host in measuring.hosts[:100]:
            await measuring.add([host], 1, tell=True)
            lone.append(await measuring.publish())
        found["lone changes"] = {
            name: round(sum(one[name] for one in lone) / len(lone), 3) for name in lone[0]
        }
        for name, some, each in (
            ("one change on every host", hosts, 1),
            ("again", hosts, 1),
            ("10 changes on every host", hosts, 10),
            ("500 changes on each of 40 hosts", 40, 500),
        ):
            await measuring.add(measuring.hosts[:some], each, tell=True)
            found[name] = await measuring.publish()
            say(f"{name}: {json.dumps(found[name])}")
        return found


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=500)
    parser.add_argument("--ports", type=int, default=750)
    options = parser.parse_args()
    gc.freeze()  # as the controller does
    gc.set_threshold(200_000, 20, 100)
    found = uvloop.run(measure(options.hosts, options.ports))
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
