"""Measures the controller on the real path: PostgreSQL, NATS, controllers as processes, HTTP.

`PYTHONPATH=tests .venv/bin/python -m scale.measure_controller [--json FILE] [--quick]`. Hosts and a
gateway are played by one process that reports everything as applied at once. All share this
machine's CPUs, so the CPU time of each part is given beside the rates.
"""

import argparse
import asyncio
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec
import numpy as np
from scale import http_load
from scale.controller_world import ControllerWorld, controller_world
from scale.http_load import Outcome, Request
from scale.simulated_fleet import play
from scale.world import cpu_seconds, family_cpu_seconds, rss_mib, say

from achelous_shared import messages, subjects
from achelous_shared.bus import Bus
from achelous_shared.bus_roles import Role
from achelous_shared.messages import RouteDelta

BATCH: Final = 20_000
CONNECTIONS: Final = 256

Result = dict[str, Any]


class Measuring:
    """One world, and a process that sends HTTP requests to it."""

    def __init__(self, world: ControllerWorld, processes: ProcessPoolExecutor) -> None:
        self._world = world
        self._processes = processes

    async def send(self, requests: list[Request], connections: int) -> tuple[Outcome, Result]:
        """The outcome, and the CPU seconds of each part meanwhile."""
        pids = self._world.pids()
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        postgres = self._world.postgres.process.pid
        of_postgres = family_cpu_seconds(postgres)
        outcome = await asyncio.get_running_loop().run_in_executor(
            self._processes,
            http_load.run, self._world.urls(), self._world.token, requests, connections,
        )  # fmt: skip
        used = {name: round(cpu_seconds(pid) - before[name], 2) for name, pid in pids.items()}
        used["postgres"] = round(family_cpu_seconds(postgres) - of_postgres, 2)
        return outcome, used | {"client": round(outcome.cpu_seconds, 2)}

    async def changes(self, requests: list[Request], connections: int) -> tuple[Outcome, Result]:
        """Single changes, and what to say of them."""
        outcome, cpu = await self.send(requests, connections)
        p50, p99 = np.percentile(outcome.latencies_ms, [50, 99]).tolist()
        return outcome, {
            "requests": len(outcome.latencies_ms),
            "connections": connections,
            "per_s": round(len(outcome.latencies_ms) / outcome.seconds),
            "p50_ms": round(p50, 1),
            "p99_ms": round(p99, 1),
            "statuses": outcome.statuses,
            "refusal": outcome.refusal,
            "cpu_s": cpu,
        }


def _create(subnet: str, number: int) -> Request:
    body = b'{"name":"i-%d","kind":"container","vnics":[{"subnet_id":"%s"}]}'
    return Request("POST", "/v1/instances", body % (number, subnet.encode()))


def _batch(subnet: str, first: int, count: int) -> Request:
    parts = b",".join(
        b'{"name":"b-%d","kind":"container","vnics":[{"subnet_id":"%s"}]}' % (n, subnet.encode())
        for n in range(first, first + count)
    )
    return Request("POST", "/v1/instances:batch", b'{"instances":[%s]}' % parts)


async def load(measuring: Measuring, world: ControllerWorld, instances: int) -> Result:
    """Instances by batches of 20,000, two calls at a time."""
    requests = [
        _batch(world.subnet, first, min(BATCH, instances - first))
        for first in range(0, instances, BATCH)
    ]
    outcome, cpu = await measuring.send(requests, 2)
    return {
        "instances": instances,
        "seconds": round(outcome.seconds, 1),
        "per_s": round(instances / outcome.seconds),
        "call_p50_s": round(float(np.percentile(outcome.latencies_ms, 50)) / 1e3, 2),
        "statuses": outcome.statuses,
        "refusal": outcome.refusal,
        "cpu_s": cpu,
    }


async def published(world: ControllerWorld, measuring: Measuring, times: int) -> Result:
    """From the call of one creation until its route is on the bus."""
    arrivals: asyncio.Queue[float] = asyncio.Queue(1000)

    async def on_routes(data: bytes) -> None:
        if messages.decode(data, RouteDelta).entries:
            await arrivals.put(time.perf_counter())

    took, replied = [], []
    url = world.nats.url(Role.OBSERVER)
    async with Bus.connect(url, role=Role.OBSERVER, name="measure") as bus:
        task = asyncio.create_task(
            bus.follow(subjects.ROUTES_STREAM, subjects.ALL_ROUTES, on_routes, last=False)
        )
        await asyncio.sleep(1)
        for number in range(times):
            call = asyncio.create_task(measuring.send([_create(world.subnet, number)], 1))
            async with asyncio.timeout(10):
                arrived = await arrivals.get()
            outcome, _ = await call
            took.append((arrived - outcome.began) * 1e3)
            replied += outcome.latencies_ms
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return {"published_ms": _quantiles(took), "replied_ms": _quantiles(replied)}


def _quantiles(values: list[float]) -> Result:
    p50, p99 = np.percentile(values, [50, 99]).tolist()
    return {"p50": round(p50, 1), "p99": round(p99, 1)}


async def lists(measuring: Measuring, world: ControllerWorld) -> Result:
    """Pages of 100, by every filter."""
    found = {}
    for query in (
        "", "?state=ACTIVE", "?state=ERROR", "?state=BUILDING", "?name=i-1", "?name=nobody",
        "?kind=vm", "?kind=container", f"?vpc_id={world.vpc}", f"?host_id={world.hosts[0]}",
        f"?host_id={world.hosts[0]}&state=ERROR", f"?vpc_id={world.vpc}&kind=bare_metal",
        f"?project_id={world.project}&state=ERROR",
    ):  # fmt: skip
        requests = [Request("GET", f"/v1/instances{query}")] * 10
        outcome, _ = await measuring.send(requests, 1)
        label = query.replace(world.vpc, "V").replace(str(world.hosts[0]), "H")
        label = label.replace(world.project, "P")
        found[label] = _quantiles(outcome.latencies_ms) | {"statuses": outcome.statuses}
    outcome, _ = await measuring.send([Request("GET", "/v1/vnics")] * 10, 1)
    found["vnics"] = _quantiles(outcome.latencies_ms)
    return found


async def measure(options: argparse.Namespace) -> Result:
    """All of it."""
    context = multiprocessing.get_context("spawn")
    result: Result = {}
    async with controller_world(
        options.controllers, options.hosts, options.shared_buffers
    ) as world:
        stop = context.Event()
        url = world.nats.url(Role.OBSERVER)
        fleet = context.Process(target=play, args=(url, UUID(world.gateway), world.hosts, stop))
        fleet.start()
        world.fleet_pid = fleet.pid
        try:
            with ProcessPoolExecutor(1, context) as processes:
                await _measure(options, world, Measuring(world, processes), result)
        finally:
            stop.set()
            fleet.join(10)
    return result


async def _measure(
    options: argparse.Namespace, world: ControllerWorld, measuring: Measuring, result: Result
) -> None:
    await measuring.send([Request("GET", "/v1/vpcs")], 1)  # the client's process is there
    if options.instances:
        result["load"] = await load(measuring, world, options.instances)
        say(f"load: {result['load']}")
        begin = time.monotonic()
        await world.settled(options.settle)
        result["load"]["all_active_after_s"] = round(time.monotonic() - begin, 1)
        say(f"settled after {result['load']['all_active_after_s']} s")
        await world.execute("VACUUM ANALYZE")
    result["ipam_ms"] = await world.allocation_ms(200)
    say(f"ipam: {result['ipam_ms']}")
    result["one"] = await published(world, measuring, 40)
    say(f"one: {result['one']}")
    creates = [_create(world.subnet, number) for number in range(options.changes)]
    outcome, result["create"] = await measuring.changes(creates, options.connections)
    say(f"create: {result['create']}")
    deletes = [Request("DELETE", f"/v1/instances/{made}") for made in outcome.ids]
    _, result["delete"] = await measuring.changes(deletes, options.connections)
    say(f"delete: {result['delete']}")
    await world.settled(options.settle)
    result["lists"] = await lists(measuring, world)
    say(f"lists: {result['lists']}")
    result["rss_mib"] = {name: round(rss_mib(pid)) for name, pid in world.pids().items()}


def main() -> None:
    """Measure, and print or write the figures."""
    parser = argparse.ArgumentParser(description="Measures the controller at scale.")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--instances", type=int, default=1_500_000)
    parser.add_argument("--hosts", type=int, default=2000)
    parser.add_argument("--controllers", type=int, default=2)
    parser.add_argument("--changes", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--shared-buffers", default="512MB")
    parser.add_argument("--settle", type=float, default=300.0, help="seconds to wait for ACTIVE")
    parser.add_argument("--quick", action="store_true", help="100,000 instances, 4,000 changes")
    options = parser.parse_args()
    if options.quick:
        options.instances, options.changes = 100_000, 4000
    result = asyncio.run(measure(options))
    text = msgspec.json.format(msgspec.json.encode(result), indent=2)
    sys.stdout.write(text.decode() + "\n")
    if options.json:
        options.json.write_bytes(text)


if __name__ == "__main__":
    main()
