"""Measures what making instances costs: Python and PostgreSQL apart, and statements there and back.

`PYTHONPATH=tests .venv/bin/python -m scale.measure_creation [--rows N]`. The API runs in this
process without server and leader, on a database of its own that holds N instances already. CPU
times, least of some repetitions: nothing waits for anything else.
"""

import argparse
import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import psutil
from prometheus_client import CollectorRegistry
from scale.world import say
from sqlalchemy import BigInteger, Uuid, bindparam, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from achelous_controller.api.context import Services
from achelous_controller.app import create_app
from achelous_controller.store.bootstrap import first_token
from achelous_controller.store.database import Database, create_engine
from achelous_controller.store.migrate import migrate
from achelous_lab.rundir import RunDir
from achelous_lab.servers.postgres import PostgresServer

BATCH: Final = 20_000

_ONE: Final = UUID(int=1)
_FILL: Final = (
    """INSERT INTO projects (id, name, quotas)
       VALUES (:one, 'p', '{"instances": 100000000, "vnics": 100000000}')""",
    "INSERT INTO usage (project_id, instances, vnics) VALUES (:one, :rows, :rows)",
    "INSERT INTO vpcs (id, project_id, name, vni) VALUES (:one, :one, 'v', nextval('vni_seq'))",
    """INSERT INTO security_groups (id, project_id, vpc_id, name)
       VALUES (:one, :one, :one, 'default')""",
    """INSERT INTO subnets (id, project_id, vpc_id, name, cidr, gateway_ip, next_ip)
       SELECT :one, :one, :one, 's', '10.0.0.0/8', '10.0.0.1', inet '10.0.0.2' + :rows""",
    """INSERT INTO hosts (id, name, vtep, capacity, vnic_count)
       SELECT lpad(to_hex(n), 32, '0')::uuid, 'h' || n, inet '198.18.0.0' + n, 1000000, :rows / 2000
       FROM generate_series(1, 2000) AS n""",
    """INSERT INTO instances
           (id, project_id, name, kind, host_id, state, host_revision, accepted_at)
       SELECT lpad(to_hex(n), 32, '0')::uuid, :one, 'i-' || n, 'container',
           lpad(to_hex(n % 2000 + 1), 32, '0')::uuid, 'ACTIVE', 1, now()
       FROM generate_series(1, :rows) AS n""",
    """INSERT INTO vnics (id, instance_id, subnet_id, project_id, vpc_id, host_id, position, ip,
           mac, vni, revision)
       SELECT i.id, i.id, :one, :one, :one, i.host_id, 0,
           inet '10.0.0.1' + substr(i.name, 3)::bigint, substr(i.name, 3)::bigint, vni, 1
       FROM instances AS i, vpcs""",
    "INSERT INTO vnic_security_groups SELECT id, :one FROM vnics",
)


class Backends:
    """The CPU time of PostgreSQL's processes."""

    def __init__(self, postmaster: int) -> None:
        self._postmaster = psutil.Process(postmaster)

    def seconds(self) -> float:
        """All of it so far, of those that live."""
        return sum(
            int(Path(f"/proc/{each.pid}/schedstat").read_text().split()[0]) / 1e9
            for each in (self._postmaster, *self._postmaster.children(recursive=True))
        )


class Messages:
    """Counts what connections send to PostgreSQL: each is answered before the next."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.sent = 0
        event.listen(engine.sync_engine, "connect", self._watch)

    def _watch(self, connection: Any, _: object) -> None:
        transport = connection.driver_connection._transport
        write = transport.write

        def counted(data: bytes) -> None:
            self.sent += 1
            write(data)

        transport.write = counted


class Client:
    """Sends requests to the application without a server between."""

    def __init__(self, engine: AsyncEngine, token: str) -> None:
        self.database = Database(engine)
        services = Services(self.database, database_problem=None)
        self._app = create_app(services, CollectorRegistry())
        self._headers = [
            (b"authorization", f"Bearer {token}".encode()),
            (b"content-type", b"application/json"),
        ]

    async def post(self, path: str, body: bytes) -> bytes:
        """The reply's body; it has to be 201."""
        scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(),
            "query_string": b"", "headers": self._headers, "root_path": "", "scheme": "http",
            "http_version": "1.1", "server": ("localhost", 80), "client": ("localhost", 1),
        }  # fmt: skip
        parts: list[bytes] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start" and message["status"] != 201:
                parts.append(b"%d: " % message["status"])
            parts.append(message.get("body", b""))

        await self._app(scope, receive, send)
        reply = b"".join(parts)
        if not reply.startswith(b"{"):
            raise RuntimeError(reply.decode())
        return reply


def _instance(number: int) -> bytes:
    return b'{"name":"x-%d","kind":"container","vnics":[{"subnet_id":"%s"}]}' % (
        number,
        str(_ONE).encode(),
    )


def _placed(number: int) -> bytes:
    """On one of 50 hosts, named, as the load generator asks for it."""
    host = b"00000000-0000-0000-0000-%012x" % (number * 50 // BATCH + 1)
    return _instance(number)[:-1] + b',"host_id":"%s"}' % host


@asynccontextmanager
async def world(rows: int) -> AsyncIterator[tuple[Client, Backends, Messages]]:
    """The API with as many instances, on a database of its own."""
    with RunDir.create() as run_dir:
        async with PostgresServer(
            run_dir.subdir("pg"), fsync=False, shared_buffers="1GB"
        ) as postgres:
            engine = create_engine(postgres.dsn())
            messages = Messages(engine)
            await migrate(engine)
            await first_token(engine, run_dir.path / "token")
            await _fill(postgres.dsn(), rows)
            client = Client(engine, (run_dir.path / "token").read_text().strip())
            yield client, Backends(postgres.process.pid), messages
            await engine.dispose()


async def _fill(dsn: str, rows: int) -> None:
    engine = create_async_engine(dsn, isolation_level="AUTOCOMMIT")  # none of ours has the time
    kinds = (bindparam("one", type_=Uuid), bindparam("rows", type_=BigInteger))
    async with engine.connect() as connection:
        for statement in (*_FILL, "VACUUM ANALYZE"):
            used = [kind for kind in kinds if f":{kind.key}" in statement]
            query = text(statement).bindparams(*used)
            await connection.execute(query, {"one": _ONE, "rows": rows})
    await engine.dispose()


async def cost(
    work: Callable[[], Awaitable[object]], backends: Backends, count: int, times: int
) -> tuple[float, float, float]:
    """Least us of Python, of PostgreSQL, and of the clock for each of ``count``."""
    found = []
    for _ in range(times):
        gc.collect()
        python, database, clock = time.process_time(), backends.seconds(), time.perf_counter()
        await work()
        found.append(
            (
                time.process_time() - python,
                backends.seconds() - database,
                time.perf_counter() - clock,
            )
        )
    least = [min(column) / count * 1e6 for column in zip(*found, strict=True)]
    return least[0], least[1], least[2]


async def measure(rows: int, times: int) -> None:
    """Say all figures."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)  # as the controller's own
    async with world(rows) as (client, backends, messages):
        say(f"{rows} instances are there")

        async def batch(one: Callable[[int], bytes]) -> None:
            body = b'{"instances":[%s]}' % b",".join(map(one, range(BATCH)))
            await client.post("/v1/instances:batch", body)

        async def lone() -> None:
            for number in range(200):
                await client.post("/v1/instances", _instance(number))

        async def together() -> None:
            for _ in range(8):
                await asyncio.gather(
                    *(client.post("/v1/instances", _instance(number)) for number in range(257))
                )

        def told(what: str, cost: tuple[float, float, float]) -> None:
            python, database, clock = cost
            say(f"{what:40} {python:7.1f} us Python {database:7.1f} us PostgreSQL {clock:7.1f} us")

        told("one of a batch", await cost(lambda: batch(_instance), backends, BATCH, times))
        told(
            "one of a batch, hosts named",
            await cost(lambda: batch(_placed), backends, BATCH, times),
        )
        told("one of 256 at a time", await cost(together, backends, 8 * 257, times))
        told("one alone", await cost(lone, backends, 200, times))
        before = messages.sent
        await client.post("/v1/instances", _instance(1))
        say(f"messages to PostgreSQL for one alone: {messages.sent - before}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=3)
    args = parser.parse_args()
    asyncio.run(measure(args.rows, args.times))


if __name__ == "__main__":
    main()
