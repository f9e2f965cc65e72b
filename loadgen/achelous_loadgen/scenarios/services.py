"""What one gateway manages alone."""

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final

import numpy as np

from achelous_loadgen.requester import Asking
from achelous_loadgen.results import Gateway
from achelous_loadgen.scenarios import relay
from achelous_loadgen.tenant import Vpc
from achelous_loadgen.truth import snapshot
from achelous_loadgen.world import World
from achelous_shared import subjects
from achelous_shared.bus_roles import Role

_BATCH: Final = 50
_IN_FLIGHT: Final = 64
_KEYS_MAX: Final = 600_000
_START_S: Final = 60.0


async def gateway(world: World, vpc: Vpc, delta: int, seconds: float) -> Gateway:
    """A start with all routes to load, and lookups by RSP, all of this VPC's routes in turn; a
    gateway with its relay likewise, and deltas of ``delta`` routes there."""
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
    asking = Asking(url, subject, wanted, vpc.vni, batch=_BATCH, window=_IN_FLIGHT)
    with ProcessPoolExecutor(1, get_context("spawn")) as processes:
        load = await asking.run(processes, seconds)
    if world.platform.own:
        world.usage.sample()
        rss = world.usage.services[world.platform.own[0].process.name].rss_mb
    relaying = await relay.measure(world, vpc, wanted, delta, seconds)
    return Gateway(
        cold_start_s=cold,
        cold_start_with_relay_s=relaying.cold_start_s if relaying else None,
        lookups_per_s=round(load.requests * _BATCH / load.seconds),
        rss_mb=rss,
        routes=len(keys),
        with_relay=relaying,
    )
