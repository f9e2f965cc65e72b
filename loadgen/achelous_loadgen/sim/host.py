"""One simulated host: the agent as it is, less its packet path, devices, probes and HTTP."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from achelous_loadgen.sim.changes import Changes, ToldTable
from achelous_loadgen.sim.devices import SimulatedDevices
from achelous_loadgen.sim.metered import MeteredBus
from achelous_loadgen.sim.path import GuestPath
from achelous_shared.bpf import NetNs
from achelous_shared.bus_roles import Role
from achelous_vswitch.agent import Agent
from achelous_vswitch.dataplane import Array
from achelous_vswitch.fc import ForwardingCache
from achelous_vswitch.gateways import Gateways
from achelous_vswitch.memory import MemoryEvents, MemoryTable, memory_dataplane
from achelous_vswitch.plan import Desired
from achelous_vswitch.programmed import slots_for
from achelous_vswitch.settings import VswitchSettings


@dataclass(frozen=True, slots=True)
class Place:
    """A host as the API registered it."""

    id: UUID
    vtep: IPv4Address


class SimulatedAgent(Agent):
    """An agent whose guests' devices appear with the document that asks for them."""

    devices: SimulatedDevices

    def on_desired(self, desired: Desired) -> None:
        """Plug in, then as ever."""
        self.devices.plug(desired.ports)
        super().on_desired(desired)


@dataclass(frozen=True, slots=True)
class SimulatedHost:
    """``settings`` with what `VswitchSettings` takes; times as on a real host."""

    place: Place
    agent: SimulatedAgent
    path: GuestPath
    bus: MeteredBus
    changes: Changes
    """Of its vNICs and of what it has learned."""

    @property
    def cache(self) -> ForwardingCache:
        """What it has learned."""
        return self.agent.state.cache

    @property
    def gateways(self) -> Gateways:
        """The gateways as it sees them."""
        return self.agent.state.gateways

    def learned(self) -> Array:
        """A copy of its FC's entries (n,), in order of slot."""
        entries: Array = self.cache.entries[self.cache.used()].copy()
        return entries

    def holds(self, vni: int, ip: bytes, vtep: IPv4Address) -> bool:
        """Whether packets for a destination go to this host, without a gateway."""
        return self.path.vtep_of(vni, ip) == int(vtep)


@asynccontextmanager
async def simulated_host(
    place: Place, nats_url: str, netns: NetNs, **settings: Any
) -> AsyncIterator[SimulatedHost]:
    """Runs until the end of the block; a failure of the agent ends the block."""
    known = VswitchSettings(
        host_id=place.id,
        nats_url=nats_url,
        run_dir=Path(tempfile.gettempdir()),
        **({"session_scan_s": 3600.0} | settings),
    )
    dataplane = memory_dataplane(
        ports=known.max_ports,
        fc=known.max_fc + slots_for(known.max_preprogrammed),
        rule_sets=8192,
        rule_words=1 << 18,
    )
    changes = Changes()
    dataplane = replace(
        dataplane,
        endpoints=ToldTable(cast(MemoryTable, dataplane.endpoints), changes),
        fc_index=ToldTable(cast(MemoryTable, dataplane.fc_index), changes),
    )
    devices = SimulatedDevices(place.vtep)
    name = f"simulated vswitch {place.id}"
    async with MeteredBus.connect(nats_url, role=Role.VSWITCH, name=name) as bus:
        with closing(cast(MemoryEvents, dataplane.learn)):
            agent = SimulatedAgent(known, dataplane, devices, netns, bus)
            agent.devices = devices
            host = SimulatedHost(place, agent, GuestPath(dataplane), bus, changes)
            async with asyncio.TaskGroup() as tasks:
                task = tasks.create_task(agent.decide())
                try:
                    yield host
                finally:
                    task.cancel()
