"""What one gateway and the controllers manage alone."""

import asyncio
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final

import numpy as np
import numpy.typing as npt

from achelous_loadgen.requester import Load, Requester
from achelous_loadgen.results import Controller, Gateway
from achelous_loadgen.tenant import Created, Vpc
from achelous_loadgen.truth import snapshot
from achelous_loadgen.world import World
from achelous_shared import subjects
from achelous_shared.bus_roles import Role

_BATCH: Final = 50
_IN_FLIGHT: Final = 64
_KEYS_MAX: Final = 600_000
_CLIENTS: Final = 128
_START_S: Final = 60.0
_LOADED: Final = 1_500_000


async def gateway(world: World, vpc: Vpc, seconds: float) -> Gateway:
    """A start with all routes to load, and lookups by RSP, all of this VPC's routes in turn."""
    routes = await snapshot(world.buses[Role.GATEWAY], vpc.vni)
    cold: float | None = None
    rss: float | None = None
    gateway_id = world.platform.gateways[0]
    if world.platform.own:
        process = world.platform.own[0].process
        await process.stop()
        begun = time.perf_counter()
        await process.start(timeout=_START_S)
        cold = round(time.perf_counter() - begun, 2)
    keys = np.ascontiguousarray(routes["ip"])
    order = np.random.default_rng(1).permutation(len(keys))[:_KEYS_MAX]
    wanted = keys[np.resize(order, max(len(order), _BATCH * _IN_FLIGHT))]
    url, subject = world.platform.nats(Role.VSWITCH), subjects.rsp(gateway_id)
    with ProcessPoolExecutor(1, get_context("spawn")) as processes:
        load = await asyncio.get_running_loop().run_in_executor(
            processes, _look_up, url, subject, wanted, vpc.vni, seconds
        )
    if world.platform.own:
        world.usage.sample()
        rss = world.usage.services[world.platform.own[0].process.name].rss_mb
    return Gateway(
        cold_start_s=cold,
        lookups_per_s=round(load.requests * _BATCH / load.seconds),
        rss_mb=rss,
        routes=len(keys),
    )


def _look_up(url: str, subject: str, keys: npt.NDArray[np.uint8], vni: int, seconds: float) -> Load:
    requester = Requester(url, subject, keys, vni, batch=_BATCH, window=_IN_FLIGHT)
    try:
        requester.check()
        return requester.run(seconds)
    finally:
        requester.close()


async def controller(world: World, vpc: Vpc, seconds: float) -> Controller:
    """Creations and deletions one by one, from several clients that each wait for the reply."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        place = world.hosts[number % len(world.hosts)].place
        made: list[Created] = []
        while time.perf_counter() < end:
            begun = time.perf_counter()
            if made:
                await world.tenant.delete(made.pop())
            else:
                made.append(await world.tenant.create(vpc, place, f"single-{number}"))
            latencies.append(time.perf_counter() - begun)
        for created in made:
            await world.tenant.delete(created)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number in range(_CLIENTS):
            tasks.create_task(client(number))
    took = time.perf_counter() - begun
    return Controller(
        single_changes_per_s=round(len(latencies) / took, 1),
        single_p99_ms=round(float(np.percentile(latencies, 99)) * 1e3, 1),
        load_1500000_s=round(vpc.load_s, 1) if vpc.filled >= _LOADED else None,
        loaded=vpc.filled,
        load_s=round(vpc.load_s, 2),
    )
