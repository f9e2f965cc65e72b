"""What all scenarios work on: the platform, a tenant, simulated and parked hosts, the watch."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any, Final
from uuid import UUID

from achelous_loadgen.balancing import choose, keep_off_the_leader
from achelous_loadgen.gateways import GatewayClient, Reports, stand_in_for_probes
from achelous_loadgen.http import Http
from achelous_loadgen.options import Options
from achelous_loadgen.platform import Platform, attached, own_platform
from achelous_loadgen.sim.host import Place, SimulatedHost, simulated_host
from achelous_loadgen.sim.parked import ParkedHosts
from achelous_loadgen.tenant import Tenant, make_tenant
from achelous_loadgen.usage import Usage
from achelous_loadgen.watch import Watch
from achelous_shared.bpf import NetNs
from achelous_shared.bus import Bus
from achelous_shared.bus_roles import Role
from achelous_vswitch.gateways import Gateways

_VTEPS: Final = IPv4Address("198.19.0.0")
_VTEPS_MAX: Final = 0xFF00
"""Those above are for gateways."""
_CAPACITY: Final = 1_000
_CHURNED: Final = 200
_AT_ONCE: Final = 16
_EMPTY_S: Final = 60.0
_SMALL: Final = {"max_fc": 4096, "max_preprogrammed": 0}


@dataclass(slots=True)
class World:
    """Closed by the block that it was made in."""

    platform: Platform
    buses: dict[Role, Bus]
    """As one who may do everything, with the inbox of a role: replies go to its askers alone."""
    reports: Reports
    gateways: list[GatewayClient]
    watch: Watch
    parked: ParkedHosts
    tenant: Tenant
    usage: Usage
    stack: AsyncExitStack
    netns: NetNs
    hosts: list[SimulatedHost] = field(default_factory=list)
    _churned: list[Place] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    """Of VTEPs."""
    _made: list[str] = field(default_factory=list)

    @property
    def http(self) -> Http:
        """The API, as an operator."""
        return self.platform.http

    async def add_hosts(self, count: int, **settings: Any) -> list[SimulatedHost]:
        """So many more simulated hosts, running."""
        return await self._simulate(await self._places(count), self.stack, settings)

    async def _simulate(
        self, places: Sequence[Place], stack: AsyncExitStack, settings: dict[str, Any]
    ) -> list[SimulatedHost]:
        url = self.platform.nats(Role.VSWITCH)
        added = [
            await stack.enter_async_context(
                simulated_host(place, url, self.netns, **(_SMALL | settings))
            )
            for place in places
        ]
        self.hosts += added
        return added

    @asynccontextmanager
    async def borrowed_hosts(
        self, count: int, **settings: Any
    ) -> AsyncIterator[list[SimulatedHost]]:
        """So many more simulated hosts for the block, which has to leave them empty."""
        places = await self._places(count)
        async with AsyncExitStack() as stack:
            added = await self._simulate(places, stack, settings)
            try:
                yield added
                await self.tenant.until_settled(_EMPTY_S)
            finally:
                self.hosts[:] = [host for host in self.hosts if host not in added]

    async def park_hosts(self, instances: int) -> list[Place]:
        """New hosts that only report, with room for so many instances."""
        return await self._park(-(-instances // _CAPACITY))

    async def churned_hosts(self) -> list[Place]:
        """Hosts that only report and have nothing but what churn puts there; always the same."""
        if not self._churned:
            self._churned += await self._park(_CHURNED)
        return self._churned

    async def _park(self, count: int) -> list[Place]:
        places = await self._places(count)
        self.parked.add(place.id for place in places)
        return places

    def count_from(self, number: int) -> None:
        """Hosts get the VTEPs after this one."""
        self._numbers = itertools.count(number + 1)

    async def clean_up(self) -> None:
        """Take the hosts away again, of a platform that goes on."""
        for host_id in self._made:
            await self.http.call("DELETE", f"/hosts/{host_id}")

    async def _places(self, count: int) -> list[Place]:
        limit = asyncio.Semaphore(_AT_ONCE)

        async def one() -> Place:
            vtep = _VTEPS + next(self._numbers)
            body = {"name": f"load-{vtep}", "vtep": str(vtep), "capacity": _CAPACITY}
            async with limit:
                made = await self.http.post("/hosts", body)
            self._made.append(made["id"])
            return Place(UUID(made["id"]), vtep)

        return list(await asyncio.gather(*(one() for _ in range(count))))


@asynccontextmanager
async def world(options: Options, **settings: Any) -> AsyncIterator[World]:
    """A world with its simulated hosts, which have these ``settings``; a task of it that fails ends
    the block."""
    async with AsyncExitStack() as stack:
        opening = attached(options.attach) if options.attach else own_platform()
        platform = await stack.enter_async_context(opening)
        buses = {role: await stack.enter_async_context(_bus(platform, role)) for role in Role}
        bus = buses[Role.OBSERVER]
        await choose(platform.http, platform.controllers())
        netns = NetNs(None)
        stack.callback(netns.close)
        reports = Reports(bus)
        clients = [
            GatewayClient(buses[Role.VSWITCH], buses[Role.CONTROLLER], gateway_id)
            for gateway_id in platform.gateways
        ]
        watch, parked = Watch(clients, reports, bus), ParkedHosts(bus)
        tenant = await make_tenant(platform.http)
        usage = Usage(platform.pids)
        made = World(platform, buses, reports, clients, watch, parked, tenant, usage, stack, netns)
        made.count_from(await _taken(platform.http))
        views = _Views(made.hosts)
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(work)
                for work in (
                    reports.run(), watch.run(), parked.run(), usage.run(),
                    stand_in_for_probes(reports, views),
                    keep_off_the_leader(platform.http, platform.controllers),
                )
            ]  # fmt: skip
            try:
                async with AsyncExitStack() as inner:
                    made.stack = inner
                    try:
                        await made.add_hosts(options.sizes.hosts, **settings)
                        yield made
                    finally:
                        if options.attach:  # while its hosts still answer
                            await tenant.clean_up()
            finally:
                try:
                    if options.attach:
                        await made.clean_up()
                finally:
                    for task in background:
                        task.cancel()


async def _taken(http: Http) -> int:
    """The largest number of a VTEP in the range that a host has already."""
    last, path = 0, "/hosts?limit=1000"
    while True:
        page = await http.get(path)
        for host in page["items"]:
            number = int(IPv4Address(host["vtep"])) - int(_VTEPS)
            if 0 < number < _VTEPS_MAX:
                last = max(last, number)
        if page.get("next") is None:
            return last
        path = f"/hosts?limit=1000&cursor={page['next']}"


def _bus(platform: Platform, inbox: Role) -> AbstractAsyncContextManager[Bus]:
    return Bus.connect(platform.nats(Role.OBSERVER), role=inbox, name=f"loadgen as {inbox}")


class _Views:
    """The gateways as each simulated host sees them, those included that come later."""

    def __init__(self, hosts: Sequence[SimulatedHost]) -> None:
        self._hosts = hosts

    def __iter__(self) -> Iterator[Gateways]:
        return iter([host.gateways for host in self._hosts])
