"""What hosts hold when their guests talk to a few of very many (section 7 of the paper).

How many destinations the guests of a host talk to is drawn from a lognormal distribution with the
paper's mean and 90th percentile, but never more than the VPC has. Most pairs never talk. How much
a pair sends is heavy-tailed too, as `RATE` says: an assumption, on which RSP's share depends.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from achelous_loadgen.results import FcEntries, Learning
from achelous_loadgen.sim.host import SimulatedHost
from achelous_loadgen.tenant import Vpc
from achelous_loadgen.truth import snapshot
from achelous_loadgen.world import World
from achelous_shared.bus_roles import Role

SIGMA: Final = 0.84
"""Of the sizes' logarithm: p90 over mean is then 2.06, as 3,900 over 1,900."""
RATE: Final = (8.0, 1.2)
"""Bytes a second of a pair: exp of a normal distribution of this mean and sigma. Its median is
24 kbit/s; 2 % of the pairs send more than 280 kbit/s."""
_PACKET: Final = 1_000
_TICK_S: Final = 0.25
_PORTS: Final = 64


class Talk:
    """The pairs of one host: destinations and their rates."""

    def __init__(
        self, host: SimulatedHost, ips: npt.NDArray[np.uint8], random: np.random.Generator
    ) -> None:
        self.host = host
        self._ips = [ip.tobytes() for ip in ips]
        self._rates = random.lognormal(*RATE, len(ips))
        self._random = random
        self.bytes = 0

    def tick(self, vni: int, seconds: float) -> None:
        """Those pairs send that have a packet to send in this time: one look at each of them."""
        sent = self._random.poisson(self._rates * seconds / _PACKET)
        self.bytes += int(sent.sum()) * _PACKET
        for number in np.flatnonzero(sent).tolist():
            self.host.path.send(vni, self._ips[number], port=1 + number % _PORTS)


async def measure(world: World, vpc: Vpc, hosts: int, mean: int, seconds: float) -> Learning:
    """``hosts`` more simulated hosts whose guests talk for ``seconds``."""
    random = np.random.default_rng(4)
    routes = await snapshot(world.buses[Role.GATEWAY], vpc.vni)
    drawn = random.lognormal(math.log(mean) - SIGMA**2 / 2, SIGMA, hosts)
    peers = np.minimum(np.maximum(drawn.astype(int), 1), len(routes))
    async with world.borrowed_hosts(hosts, max_fc=65_536) as added:
        places = [host.place for host in added]
        own = await world.tenant.create_many(vpc.batch(places, hosts, "talks"))
        talks = [
            Talk(host, routes["ip"][random.choice(len(routes), count, replace=False)], random)
            for host, count in zip(added, peers.tolist(), strict=True)
        ]
        await _talk(talks, vpc.vni, seconds)
        sizes = np.sort([len(host.cache) for host in added])
        rsp = sum(host.bus.rsp_bytes for host in added)
        await world.tenant.delete_many(own)
    traffic = sum(talk.bytes for talk in talks)
    p90, p99 = np.percentile(sizes, [90, 99]).tolist()
    return Learning(
        vpc=vpc.filled,
        fc_entries=FcEntries(
            mean=round(float(sizes.mean()), 1),
            p90=round(p90, 1),
            p99=round(p99, 1),
            max=float(sizes[-1]),
        ),
        rsp_share=round(rsp / max(rsp + traffic, 1), 5),
        hosts=hosts,
        seconds=seconds,
        traffic_bytes=traffic,
        rsp_bytes=rsp,
        cdf=sizes.tolist(),
    )


async def _talk(talks: Sequence[Talk], vni: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    last = time.monotonic()
    while last < end:
        now = time.monotonic()
        for talk in talks:
            talk.tick(vni, now - last)
            await asyncio.sleep(0)  # agents learn meanwhile
        last = now
        await asyncio.sleep(max(0.0, _TICK_S - (time.monotonic() - now)))


def state_saved(learning: Learning) -> float:
    """Part of the route entries of a whole VPC that a host does not hold, 0..1."""
    return round(1 - min(learning.fc_entries.mean / max(learning.vpc, 1), 1.0), 5)
