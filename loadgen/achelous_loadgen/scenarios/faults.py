"""Parts that fail during churn, and how long it takes until everything is right again.

For a platform that this run has started: nobody else's is broken.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Final

import httpx
import numpy as np

from achelous_lab.fault_proxy import FaultProxy, Rates
from achelous_lab.platform import Lab
from achelous_lab.process import Process
from achelous_loadgen import truth
from achelous_loadgen.balancing import leads
from achelous_loadgen.platform import gateway_process
from achelous_loadgen.results import Fault
from achelous_loadgen.scenarios.churn import Churning
from achelous_loadgen.tenant import Vpc
from achelous_loadgen.world import World
from achelous_shared import subjects
from achelous_shared.bus import BusError
from achelous_shared.bus_roles import Role

_CONVERGE_S: Final = 60.0
_BEFORE_S: Final = 1.0
_LOOK_S: Final = 0.2
_RESTART_S: Final = 8.0
"""Churn goes on for so long after a fault without a length."""
_LASTING: Final = frozenset({"gateway-stopped", "messages"})

Break = Callable[[World, Lab, float], Awaitable[None]]
"""Breaks something for so many seconds and repairs it; returns when it runs again."""


async def _gateway_stopped(world: World, _: Lab, seconds: float) -> None:
    process = world.platform.own[0].process
    process.send_signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        process.send_signal(signal.SIGCONT)


async def _gateway_killed(world: World, _: Lab, _seconds: float) -> None:
    await _kill(world.platform.own[0].process)


async def _nats_restarted(_: World, lab: Lab, _seconds: float) -> None:
    if lab.nats is not None:
        await lab.nats.kill9()
        await lab.nats.start()


async def _postgres_restarted(_: World, lab: Lab, _seconds: float) -> None:
    if lab.postgres is not None:
        await lab.postgres.stop()
        await lab.postgres.start()


async def _leader_killed(_: World, lab: Lab, _seconds: float) -> None:
    for process in lab.controllers:
        try:
            metrics = (await lab.ask(process, "metrics")).content
        except (OSError, httpx.HTTPError):  # it has ended, or is busy with its own recovery
            continue
        if leads(metrics):
            await _kill(process)
            return
    raise ValueError("no controller says that it leads")


async def _messages(world: World, lab: Lab, seconds: float) -> None:
    """Of the route messages to one gateway 1 % each is lost, repeated, and late.

    The gateway goes on behind the proxy: a start would hide what it had not noticed.
    """
    gateway = world.platform.own[-1]
    proxy = FaultProxy(lab.nats_url(Role.GATEWAY), subjects.ALL_ROUTES.rstrip("*"))
    await world.platform.proxies.enter_async_context(proxy.serving())
    await gateway.process.stop()
    gateway.process = gateway_process(lab, gateway.id, gateway.process.name, proxy.url)
    await gateway.process.start(timeout=60)
    proxy.rates = Rates(dropped=0.01, repeated=0.01, late=0.01)
    await asyncio.sleep(seconds)
    proxy.rates = Rates()


async def _kill(process: Process) -> None:
    await process.kill9()
    await process.start(timeout=60)


FAULTS: Final[dict[str, Break]] = {
    "gateway-stopped": _gateway_stopped,
    "gateway-killed": _gateway_killed,
    "nats-restarted": _nats_restarted,
    "postgres-restarted": _postgres_restarted,
    "leader-killed": _leader_killed,
    "messages": _messages,
}


async def measure(world: World, vpc: Vpc, name: str, rate: float, seconds: float) -> Fault:
    """Churn from before the fault until after it; then look until all is right, or for a minute.

    ``seconds``: how long a fault that has a length lasts. Raises ValueError for a platform that is
    not this run's own.
    """
    if world.platform.lab is None:
        raise ValueError("faults are for a platform of one's own: leave --attach out")
    churning = Churning(world, vpc, rate, await world.churned_hosts())
    lasts = seconds if name in _LASTING else min(seconds, _RESTART_S)
    churn = asyncio.create_task(churning.run(lasts + 2 * _BEFORE_S))
    try:
        await asyncio.sleep(_BEFORE_S)
        await FAULTS[name](world, world.platform.lab, seconds)
        repaired = time.monotonic()
        await churn
    finally:
        churn.cancel()
    await world.tenant.delete_many([one.created for one in churning.outcome.alive])
    settled, wrong = await _settled(world, vpc)
    return Fault(
        converged_s=None if wrong else round(settled - repaired, 2),
        lost=churning.outcome.lost,
        wrong=wrong,
    )


async def _settled(world: World, vpc: Vpc) -> tuple[float, int]:
    """`time.monotonic()` when nothing was wrong any more, or a minute was over; what is wrong.

    What is quickly seen is looked at again and again, and whole tables once that is right.
    """
    deadline = time.monotonic() + _CONVERGE_S
    while True:
        try:
            wrong = await _pending(world, vpc)
            at = time.monotonic()
            if not wrong:
                wrong = await _differing(world, vpc)
        except BusError:
            at, wrong = time.monotonic(), 1
        if not wrong or at > deadline:
            return at, wrong
        await asyncio.sleep(_LOOK_S)


async def _pending(world: World, vpc: Vpc) -> int:
    """Instances on their way, gateways behind, FC entries that are not the gateway's."""
    wrong = await world.tenant.unsettled()
    revision = await truth.revision(world.buses[Role.GATEWAY], vpc.vni)
    for gateway in world.gateways:
        shown = await gateway.show()
        views = {view.vni: view for view in shown.vpcs} if shown and shown.serving else {}
        wrong += vpc.vni not in views or views[vpc.vni].revision < revision
        wrong += await truth.disagreeing(gateway, vpc.vni, world.hosts)
    return wrong


async def _differing(world: World, vpc: Vpc) -> int:
    """Routes that a gateway has otherwise than the database, or beyond it."""
    routes = await truth.snapshot(world.buses[Role.GATEWAY], vpc.vni)
    wrong = 0
    for gateway in world.gateways:
        served = await truth.answers(gateway, vpc.vni, routes["ip"])
        same = (served.vteps == routes["vtep"]) & (served.macs == routes["mac"]).all(axis=1)
        wrong += int(np.count_nonzero(~same))
        shown = await gateway.show()
        tables = {view.vni: view.routes for view in shown.vpcs} if shown else {}
        wrong += abs(tables.get(vpc.vni, 0) - len(routes))
    return wrong
