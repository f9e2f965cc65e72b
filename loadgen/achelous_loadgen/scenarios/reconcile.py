"""What it costs a host to keep what it has learned true while nothing changes."""

import asyncio
import time
from typing import Final, Literal

from achelous_loadgen.results import Reconcile
from achelous_loadgen.sim.host import SimulatedHost
from achelous_loadgen.tenant import Vpc
from achelous_loadgen.truth import snapshot
from achelous_loadgen.world import World
from achelous_shared.bus_roles import Role

Mode = Literal["delta", "per_entry"]

_PORTS: Final = 64
_LEARN_S: Final = 60.0
_SETTLE_S: Final = 0.5
_SEND_S: Final = 0.05
_STAY_S: Final = 3600.0


async def measure(world: World, vpc: Vpc, entries: int, seconds: float) -> Reconcile:
    """Two hosts with the same entries, one for each mode, measured one after the other.

    A VPC that has fewer instances gives as many as it has.
    """
    routes = await snapshot(world.buses[Role.GATEWAY], vpc.vni)
    ips = [ip.tobytes() for ip in routes["ip"][:entries]]
    rates = [await _rate(world, vpc, ips, mode, seconds) for mode in ("per_entry", "delta")]
    return Reconcile(per_entry_bytes_per_s=rates[0], delta_bytes_per_s=rates[1], entries=len(ips))


async def _rate(world: World, vpc: Vpc, ips: list[bytes], mode: str, seconds: float) -> float:
    [host] = await world.add_hosts(1, max_fc=65_536, reconcile=mode, fc_idle_s=_STAY_S)
    # only a host with a port in the VPC holds its routes
    own = await world.tenant.create(vpc, host.place, f"reconciles-{mode.replace('_', '-')}")
    await learn(host, vpc.vni, ips, _LEARN_S)
    await asyncio.sleep(_SETTLE_S)
    before, begun = host.bus.rsp_bytes, asyncio.get_running_loop().time()
    await asyncio.sleep(seconds)
    took = asyncio.get_running_loop().time() - begun
    rate = (host.bus.rsp_bytes - before) / took
    await world.tenant.delete(own)
    return round(rate, 1)


async def learn(host: SimulatedHost, vni: int, ips: list[bytes], timeout: float) -> None:
    """Guests send to each destination until the host has learned it. Raises TimeoutError."""
    missing = list(range(len(ips)))
    deadline = time.monotonic() + timeout
    while missing:
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"after {timeout:g} s: host {host.place.vtep} has not learned {len(missing)} of"
                f" {len(ips)}"
            )
        missing = [
            number
            for number in missing
            if not host.path.send(vni, ips[number], port=1 + number % _PORTS)
        ]
        await asyncio.sleep(_SEND_S)
