"""A gateway and hosts as the controller sees them: they take what comes and report it as applied.

Nothing is kept of routes or documents but their revisions. One process plays all of them.
"""

import asyncio
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Event as StopEvent
from typing import Final
from uuid import UUID

import numpy as np
import uvloop

from achelous_loadgen.sim.parked import ParkedHosts
from achelous_shared import messages, subjects
from achelous_shared.bus import Bus
from achelous_shared.bus_roles import Role
from achelous_shared.messages import GatewayApplied, RouteDelta
from achelous_shared.routes import REVISION, pack

_HEARTBEAT_S: Final = 0.5
_COALESCE_S: Final = 0.002


class SimulatedGateway:
    """Reports of one gateway."""

    def __init__(self, bus: Bus, gateway: UUID) -> None:
        self._bus = bus
        self._gateway = gateway
        self._revisions: dict[int, int] = {}
        self._moved = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(
                self._bus.follow(
                    subjects.ROUTES_STREAM, subjects.ALL_ROUTES, self._on_routes, last=False
                )
            )
            group.create_task(self._report())

    async def _on_routes(self, data: bytes) -> None:
        delta = messages.decode(data, RouteDelta)
        self._revisions[delta.vni] = delta.revision
        self._moved.set()

    async def _report(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_HEARTBEAT_S):
                    await self._moved.wait()
                    await asyncio.sleep(_COALESCE_S)
            except TimeoutError:
                pass
            self._moved.clear()
            table = np.array(list(self._revisions.items()), REVISION)
            await self._bus.publish(
                subjects.gateway_applied(self._gateway),
                GatewayApplied(
                    gateway_id=self._gateway,
                    full=True,
                    serving=True,
                    revisions=pack(table),
                    at=time.time(),
                ),
            )


def play(url: str, gateway: UUID, hosts: Sequence[UUID], stop: StopEvent) -> None:
    """Play the fleet in this process until ``stop`` is set."""
    uvloop.run(_play(url, gateway, hosts, stop))


async def _play(url: str, gateway: UUID, hosts: Sequence[UUID], stop: StopEvent) -> None:
    async with Bus.connect(url, role=Role.OBSERVER, name="fleet") as bus:
        parked = ParkedHosts(bus)
        parked.add(hosts)
        tasks = [
            asyncio.create_task(part.run()) for part in (SimulatedGateway(bus, gateway), parked)
        ]
        await asyncio.get_running_loop().run_in_executor(None, stop.wait)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
