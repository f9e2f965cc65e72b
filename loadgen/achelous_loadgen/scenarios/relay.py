"""One gateway with its relay, beside those that serve: its start, large deltas, RSP meanwhile.

Deltas are what controllers make of batches, so that these have their part of the CPUs meanwhile:
`scale.measure_gateway` has deltas without controllers.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Final
from uuid import UUID

import numpy as np
import numpy.typing as npt

from achelous_lab.platform import Lab
from achelous_lab.waiting import wait_until
from achelous_loadgen.platform import relaying_gateway
from achelous_loadgen.requester import Asking
from achelous_loadgen.results import Relay
from achelous_loadgen.scenarios.programming_time import remove
from achelous_loadgen.tenant import Created, Vpc, made_by
from achelous_loadgen.world import World
from achelous_shared import messages, subjects
from achelous_shared.bus import Bus
from achelous_shared.bus_roles import Role
from achelous_shared.messages import BadMessage, GatewayApplied, RouteDelta
from achelous_shared.nats_wire import Received
from achelous_shared.routes import REVISION, ROUTE, unpack

LookUp = Callable[[float], Coroutine[None, None, Sequence[float]]]
"""Latencies in ms of requests, one at a time, for so many seconds."""

_BATCH: Final = 50
_START_S: Final = 60.0
_WAIT_S: Final = 60.0
_ROUNDS: Final = 7
_MEANWHILE_S: Final = 2.0


@dataclass(slots=True)
class Deltas:
    """What is heard of one VPC's deltas, and of one gateway that applies them."""

    vni: int
    gateway_id: UUID
    entries: int = 0
    """Since `forget`."""
    revision: int = 0
    applied: dict[int, float] = field(default_factory=dict)
    """When the gateway first said that it has a revision: by itself, Unix time in seconds."""

    def forget(self) -> None:
        """Begin anew."""
        self.entries = 0
        self.applied.clear()

    def on_deltas(self, received: Received) -> tuple[()]:
        """Note them."""
        for data in received.payloads:
            with suppress(BadMessage):
                delta = messages.decode(data, RouteDelta)
                if delta.vni == self.vni and delta.entries:
                    self.entries += len(delta.entries) // ROUTE.itemsize
                    self.revision = max(self.revision, delta.revision)
        return ()

    def on_reports(self, received: Received) -> tuple[()]:
        """Note what the gateway has."""
        for data in received.payloads:
            with suppress(BadMessage):
                report = messages.decode(data, GatewayApplied)
                if report.gateway_id == self.gateway_id:
                    held = dict(unpack(report.revisions, REVISION).tolist())
                    if self.vni in held:
                        self.applied.setdefault(held[self.vni], report.at)
        return ()

    def ended(self, entries: int) -> float | None:
        """When the gateway had the last of so many; None: they are not all there."""
        if self.entries < entries:
            return None
        return min(
            (at for revision, at in self.applied.items() if revision >= self.revision), default=None
        )


async def measure(
    world: World, vpc: Vpc, keys: npt.NDArray[np.uint8], delta: int, seconds: float
) -> Relay | None:
    """``keys`` (n, 16): routes that are there; ``delta``: routes of one delta; ``seconds``: of RSP
    at rest. None on a platform that is not this run's own, or for whoever is not root."""
    lab = world.platform.lab
    if lab is None:
        return None
    try:
        return await _measure(world, lab, vpc, keys, delta, seconds)
    except PermissionError:
        return None


async def _measure(
    world: World, lab: Lab, vpc: Vpc, keys: npt.NDArray[np.uint8], count: int, seconds: float
) -> Relay:
    async with relaying_gateway(lab, world.http) as gateway:
        begun = time.perf_counter()
        await gateway.process.start(timeout=_START_S)
        cold = time.perf_counter() - begun
        url, subject = world.platform.nats(Role.VSWITCH), subjects.rsp(gateway.id)
        asking = Asking(url, subject, keys, vpc.vni, batch=_BATCH, window=1)
        with ProcessPoolExecutor(1, get_context("spawn")) as processes:

            async def look_up(for_s: float) -> Sequence[float]:
                return (await asking.run(processes, for_s)).latencies_ms

            at_rest = await look_up(seconds)
            took, meanwhile = await _deltas(world, vpc, gateway.id, look_up, count)
    p50, p99 = (np.percentile(took, [50, 99]) * 1e3).round(1).tolist()
    return Relay(
        cold_start_s=round(cold, 2),
        delta_entries=count,
        deltas=len(took),
        delta_p50_ms=p50,
        delta_p99_ms=p99,
        rsp_p99_at_rest_ms=round(float(np.percentile(at_rest, 99)), 2),
        rsp_p99_meanwhile_ms=round(float(np.percentile(meanwhile, 99)), 2),
    )


async def _deltas(
    world: World, vpc: Vpc, gateway_id: UUID, look_up: LookUp, count: int
) -> tuple[list[float], list[float]]:
    """Seconds that each delta took; RSP's latencies meanwhile, in ms."""
    deltas, bus = Deltas(vpc.vni, gateway_id), world.buses[Role.OBSERVER]
    places = await world.churned_hosts()
    took: list[float] = []
    latencies: list[float] = []
    made: list[Created] = []
    async with asyncio.TaskGroup() as tasks:
        listening = [
            tasks.create_task(bus.react(subject, take, max_payload=bus.max_payload))
            for subject, take in (
                (subjects.ALL_ROUTES, deltas.on_deltas),
                (subjects.gateway_applied(gateway_id), deltas.on_reports),
            )
        ]
        for number in range(_ROUNDS):
            await world.tenant.until_settled(_WAIT_S)
            deltas.forget()
            before = await bus.last_number(subjects.ROUTES_STREAM)
            asked = tasks.create_task(look_up(_MEANWHILE_S))
            reply = await world.tenant.post_many(vpc.batch(places, count, f"delta-{number}"))
            await wait_until(lambda: deltas.ended(count) is not None, "a delta", timeout=_WAIT_S)
            took.append((deltas.ended(count) or 0.0) - await _begun(bus, vpc.vni, before))
            latencies += await asked
            made += made_by(reply)
        for task in listening:
            task.cancel()
    await remove(world, vpc, made)
    return took, latencies


async def _begun(bus: Bus, vni: int, number: int) -> float:
    """When the routes' stream took the VPC's first delta with entries above ``number``, Unix time.

    Asked of the server: this process may hear of both ends of a delta much later.
    """
    while True:
        number, data, at = await bus.stored_after(
            subjects.ROUTES_STREAM, subjects.routes(vni), number
        )
        if messages.decode(data, RouteDelta).entries:
            return at
