"""Gateways and hosts as the controller sees them: they take what comes and report it as applied.

Nothing is kept of routes or documents but their revisions. One process plays all of them.
"""

import asyncio
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Event as StopEvent
from typing import Final
from uuid import UUID

import msgspec
import numpy as np
import uvloop

from achelous_shared import messages, subjects
from achelous_shared.bus import Bus
from achelous_shared.bus_roles import Role
from achelous_shared.messages import GatewayApplied, HostApplied, RouteDelta
from achelous_shared.routes import REVISION, pack

_HEARTBEAT_S: Final = 0.5
_COALESCE_S: Final = 0.002


class _Stand(msgspec.Struct):
    """What is read of a host's document, or of what changed in it."""

    host_id: UUID
    revision: int


class SimulatedFleet:
    """Reports for one gateway and for hosts."""

    def __init__(self, bus: Bus, gateway: UUID, hosts: Sequence[UUID], fleet_revision: int) -> None:
        self._bus = bus
        self._gateway = gateway
        self._hosts = dict.fromkeys(hosts, 0)
        self._fleet_revision = fleet_revision
        self._revisions: dict[int, int] = {}
        self._moved = asyncio.Event()
        self._stand = msgspec.msgpack.Decoder(_Stand)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(
                self._bus.follow(
                    subjects.ROUTES_STREAM, subjects.ALL_ROUTES, self._on_routes, last=False
                )
            )
            group.create_task(
                self._bus.follow(
                    subjects.HOSTS_STREAM, subjects.ALL_OF_HOSTS, self._on_host, last=True
                )
            )
            group.create_task(self._gateway_reports())
            group.create_task(self._host_heartbeats())

    async def _on_routes(self, data: bytes) -> None:
        delta = messages.decode(data, RouteDelta)
        self._revisions[delta.vni] = delta.revision
        self._moved.set()

    async def _on_host(self, data: bytes) -> None:
        stand = self._stand.decode(data)
        if self._hosts.get(stand.host_id, 0) > stand.revision:
            return
        self._hosts[stand.host_id] = stand.revision
        await self._report_host(stand.host_id, stand.revision)

    async def _gateway_reports(self) -> None:
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

    async def _host_heartbeats(self) -> None:
        while True:
            for number, (host, revision) in enumerate(list(self._hosts.items())):
                await self._report_host(host, revision)
                if number % 20 == 0:
                    await asyncio.sleep(20 / len(self._hosts))

    async def _report_host(self, host: UUID, revision: int) -> None:
        await self._bus.publish(
            subjects.host_applied(host),
            HostApplied(
                host_id=host,
                revision=revision,
                fleet_revision=self._fleet_revision,
                waiting=(),
                failed={},
                at=time.time(),
            ),
        )


def play(url: str, gateway: UUID, hosts: list[UUID], fleet_revision: int, stop: StopEvent) -> None:
    """Play the fleet in this process until ``stop`` is set."""
    uvloop.run(_play(url, gateway, hosts, fleet_revision, stop))


async def _play(
    url: str, gateway: UUID, hosts: list[UUID], fleet_revision: int, stop: StopEvent
) -> None:
    async with Bus.connect(url, role=Role.OBSERVER, name="fleet") as bus:
        fleet = SimulatedFleet(bus, gateway, hosts, fleet_revision)
        task = asyncio.create_task(fleet.run())
        await asyncio.get_running_loop().run_in_executor(None, stop.wait)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
