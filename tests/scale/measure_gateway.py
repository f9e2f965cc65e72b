"""Measures one gateway on the real path: PostgreSQL, controller, NATS, gateway, as processes.

`PYTHONPATH=tests .venv/bin/python -m scale.measure_gateway [--json FILE] [--quick]`. Everything
shares this machine's CPUs, the requesters too, so the CPU time of each part is given beside the
rates.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from scale.world import (
    REVISION,
    VNI,
    Gateway,
    World,
    addresses,
    cpu_seconds,
    mapped_mib,
    maps_mib,
    rss_mib,
    say,
    world,
)

from achelous_lab.waiting import wait_until
from achelous_loadgen.requester import Load, Requester
from achelous_shared import messages, subjects
from achelous_shared.bus import Bus
from achelous_shared.bus_roles import Role
from achelous_shared.messages import GatewayApplied, RouteDelta
from achelous_shared.routes import MAX_DELTA_ENTRIES, ROUTE, RouteOp, pack, unpack
from achelous_shared.routes import REVISION as REVISION_DTYPE

BATCH: Final = 50
DELTA: Final = 20_000
BURST: Final = 5_000
"""Changes of one route each, published without a wait."""
_KEYS: Final = 600_000

Result = dict[str, Any]


class Cpu:
    """CPU seconds that the parts used since this was made."""

    def __init__(self, **pids: int) -> None:
        self._pids = pids
        self._begin = {name: cpu_seconds(pid) for name, pid in pids.items()}

    def used(self) -> dict[str, float]:
        """By part."""
        return {name: cpu_seconds(pid) - self._begin[name] for name, pid in self._pids.items()}


async def cold_start(platform: World, gateway: Gateway) -> Result:
    """From the start of the process until it serves."""
    cpu = Cpu(controller=platform.controller.pid, nats=platform.nats.process.pid)
    begin = time.perf_counter()
    await gateway.process.start(timeout=60)
    took = time.perf_counter() - begin
    used = cpu.used() | {"gateway": cpu_seconds(gateway.process.pid)}
    return {
        "seconds": round(took, 2),
        "rss_mib": round(rss_mib(gateway.process.pid)),
        "cpu_s": {name: round(seconds, 2) for name, seconds in used.items()},
    }


@dataclass(frozen=True, slots=True)
class Requesters:
    """Runs requesters, each in a process of its own: what it measures is not this one's doing."""

    url: str
    subject: str
    routes: int
    processes: ProcessPoolExecutor

    async def run(self, window: int, seconds: float) -> Load:
        """One requester with ``window`` requests in flight."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self.processes, _request, self.url, self.subject, self.routes, window, seconds
        )


def _request(url: str, subject: str, routes: int, window: int, seconds: float) -> Load:
    order = np.random.default_rng(1).permutation(routes)[:_KEYS]
    requester = Requester(url, subject, addresses(routes)[order], VNI, batch=BATCH, window=window)
    try:
        requester.check()
        return requester.run(seconds)
    finally:
        requester.close()


async def rate(
    requesters: Requesters, platform: World, gateway: Gateway, window: int, seconds: float
) -> Result:
    """Lookups a second of one requester with ``window`` requests in flight."""
    cpu = Cpu(gateway=gateway.process.pid, nats=platform.nats.process.pid)
    load = await requesters.run(window, seconds)
    used = cpu.used() | {"requester": load.cpu_seconds}
    return {
        "requesters": 1,
        "in_flight": window,
        "keys_per_request": BATCH,
        "lookups_per_s": round(load.requests * BATCH / load.seconds),
        "lookups_per_gateway_cpu_s": round(load.requests * BATCH / used["gateway"]),
        "cpu_us_per_request": {
            name: round(spent / load.requests * 1e6, 1) for name, spent in used.items()
        },
    }


def quantiles(load: Load) -> Result:
    """Latencies of single requests."""
    p50, p99 = np.percentile(load.latencies_ms, [50, 99]).tolist()
    return {"p50_ms": round(p50, 3), "p99_ms": round(p99, 3), "requests": load.requests}


class Deltas:
    """Deltas of `DELTA` routes, each published once the one before was reported as applied."""

    def __init__(self, bus: Bus, routes: int) -> None:
        self._bus = bus
        self._addresses = addresses(routes)
        self._random = np.random.default_rng(2)
        self.revision = REVISION
        self._applied = 0

    async def on_report(self, data: bytes) -> None:
        """Note what a gateway reports."""
        revisions = unpack(messages.decode(data, GatewayApplied).revisions, REVISION_DTYPE)
        self._applied = dict(revisions.tolist()).get(VNI, self._applied)

    async def one(self, entries: int = DELTA) -> float:
        """Publish one; seconds until the gateway's report is here."""
        begin = await self.publish(entries)
        await self._until_applied()
        return time.perf_counter() - begin

    async def publish(self, entries: int = DELTA) -> float:
        """Publish one, up to `revision`; when that began, by `time.perf_counter`."""
        parts = self._parts(entries)
        begin = time.perf_counter()
        for part in parts:
            await self._publish(part)
        return begin

    async def singles(self, count: int) -> float:
        """Publish so many changes of one route each, without a wait between them; seconds until
        the report of the last."""
        parts = [part for _ in range(count) for part in self._parts(1)]
        begin = time.perf_counter()
        await asyncio.gather(*map(self._publish, parts))
        await self._until_applied()
        return time.perf_counter() - begin

    async def _until_applied(self) -> None:
        await wait_until(lambda: self._applied == self.revision, "the delta", interval=0.001)

    def _parts(self, entries: int) -> list[RouteDelta]:
        """The messages of a delta, up to `revision`."""
        count = min(entries, len(self._addresses))
        picked = self._addresses[self._random.choice(len(self._addresses), count, False)]
        return [
            self._message(picked[at : at + MAX_DELTA_ENTRIES])
            for at in range(0, len(picked), MAX_DELTA_ENTRIES)
        ]

    async def _publish(self, part: RouteDelta) -> None:
        await self._bus.publish_stream(
            subjects.ROUTES_STREAM,
            subjects.routes(VNI),
            messages.encode(part),
            message_id=f"scale-{part.revision}",
        )

    def _message(self, ips: NDArray[np.uint8]) -> RouteDelta:
        base, self.revision = self.revision, self.revision + 1
        entries = np.zeros(len(ips), ROUTE)
        entries["ip"], entries["op"], entries["revision"] = ips, RouteOp.UPSERT, self.revision
        entries["vtep"] = self._random.integers(1, 2**32, len(ips))
        return RouteDelta(vni=VNI, base=base, revision=self.revision, entries=pack(entries))


@asynccontextmanager
async def deltas(platform: World, routes: int) -> AsyncIterator[Deltas]:
    """Listens to reports meanwhile."""
    url = platform.nats.url(Role.OBSERVER)
    async with Bus.connect(url, role=Role.OBSERVER, name="scale") as bus:
        source = Deltas(bus, routes)
        task = asyncio.create_task(bus.listen(subjects.ALL_GATEWAYS_APPLIED, source.on_report))
        try:
            yield source
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def disturbance(requesters: Requesters, source: Deltas, seconds: float) -> Result:
    """RSP latency, one request at a time, at rest and while deltas follow each other."""
    at_rest = await requesters.run(1, seconds)
    during = asyncio.create_task(requesters.run(1, seconds))
    applied = []
    while not during.done():
        applied.append(await source.one())
        await asyncio.sleep(0.05)
    disturbed = await during
    return {
        "entries": DELTA,
        "published_to_reported_ms": milliseconds(applied),
        "deltas": len(applied),
        "rsp_at_rest": quantiles(at_rest),
        "rsp_meanwhile": quantiles(disturbed),
    }


def milliseconds(seconds: list[float]) -> Result:
    """Of times in seconds."""
    p50, p99 = (np.percentile(seconds, [50, 99]) * 1e3).tolist()
    return {"p50": round(p50, 1), "p99": round(p99, 1)}


async def undisturbed(source: Deltas, gateway: Gateway) -> Result:
    """Deltas, lone changes and a burst of them while nobody asks, with the gateway's CPU."""
    pid, result = gateway.process.pid, {}
    for name, entries, times in (("delta", DELTA, 20), ("lone_change", 1, 300)):
        cpu = Cpu(gateway=pid)
        took = [await source.one(entries) for _ in range(times)]
        spent = cpu.used()["gateway"] / times * 1e3
        result[name] = {"published_to_reported_ms": milliseconds(took), "cpu_ms": round(spent, 3)}
    cpu = Cpu(gateway=pid)
    seconds = await source.singles(BURST)
    spent = cpu.used()["gateway"] / BURST * 1e3
    result["burst"] = {"changes": BURST, "seconds": round(seconds, 2), "cpu_ms": round(spent, 3)}
    return result


def memory(gateway: Gateway) -> Result:
    """Resident memory of the process, the kernel's of its eBPF maps, and both together."""
    pid = gateway.process.pid
    resident, maps, mapped = rss_mib(pid), maps_mib(pid), mapped_mib(pid)
    return {
        "resident": round(resident),
        "of_that_maps": round(mapped),
        "maps": round(maps),
        "together": round(resident + maps - mapped),
    }


async def measure_rsp(
    platform: World, processes: ProcessPoolExecutor, result: Result, routes: int, seconds: float
) -> None:
    """Deltas, rates and memory of a gateway with its data plane."""
    async with platform.gateway(dataplane=True) as gateway:
        await gateway.process.start(timeout=60)
        url, subject = platform.nats.url(Role.VSWITCH), subjects.rsp(gateway.id)
        requesters = Requesters(url, subject, routes, processes)
        async with deltas(platform, routes) as source:
            result["delta"] = await disturbance(requesters, source, seconds)
            say(f"delta: {result['delta']}")
            result["undisturbed"] = await undisturbed(source, gateway)
            say(f"undisturbed: {result['undisturbed']}")
        for window in (16, 64, 256):
            result["rsp"].append(await rate(requesters, platform, gateway, window, seconds))
            say(f"rsp: {result['rsp'][-1]}")
        result["memory_mib"] = memory(gateway)
        say(f"memory: {result['memory_mib']}")


async def measure(routes: int, seconds: float, starts: int) -> Result:
    """All of it."""
    say(f"PostgreSQL with {routes:,} routes")
    async with world(routes) as platform:
        result: Result = {"routes": routes, "cold_start": [], "cold_start_ebpf": [], "rsp": []}
        for dataplane in (True, False):
            for number in range(starts):
                kind = "cold_start_ebpf" if dataplane else "cold_start"
                async with platform.gateway(dataplane=dataplane) as gateway:
                    result[kind].append(await cold_start(platform, gateway))
                    say(f"{kind} {number + 1} of {starts}: {result[kind][-1]}")
        with ProcessPoolExecutor(1, get_context("spawn")) as processes:
            await measure_rsp(platform, processes, result, routes, seconds)
    return result


def main() -> None:
    """Measure, and print or write the figures."""
    parser = argparse.ArgumentParser(description="Measures one gateway at scale.")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--routes", type=int, default=1_500_000)
    parser.add_argument("--quick", action="store_true", help="100,000 routes, a second each")
    options = parser.parse_args()
    routes, seconds, starts = (100_000, 1.0, 1) if options.quick else (options.routes, 4.0, 3)
    result = asyncio.run(measure(routes, seconds, starts))
    text = msgspec.json.format(msgspec.json.encode(result), indent=2)
    sys.stdout.write(text.decode() + "\n")
    if options.json:
        options.json.write_bytes(text)


if __name__ == "__main__":
    main()
