"""Changes at a steady rate, whatever the platform makes of them: creations and deletions.

The times are from when a change was due, so that a platform that falls behind cannot hide it. (The
API cannot move an instance to another host; when it can, a third kind of change belongs here.)
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final

import numpy as np

from achelous_lab.api import ApiRefused
from achelous_loadgen import waiting
from achelous_loadgen.http import ApiGone
from achelous_loadgen.results import Churn
from achelous_loadgen.tenant import Created, Vpc
from achelous_loadgen.world import World
from achelous_shared.routes import ip_bytes

_WAIT_S: Final = 30.0
_IN_FLIGHT: Final = 2_000
_HELD: Final = 200
"""Instances that are alive before the first is deleted again."""
_FRESH_EVERY: Final = 10
"""Of so many instances one is learned by another host, to see how late that acts on its end."""


@dataclass(slots=True)
class Outcome:
    """Seconds of each change that took effect; what did not."""

    seconds: list[float] = field(default_factory=list)
    fresh: list[float] = field(default_factory=list)
    refused: int = 0
    lost: int = 0
    alive: "deque[Created]" = field(default_factory=deque)


class Churning:
    """Changes of one VPC, of ``rate`` a second, on the simulated hosts."""

    def __init__(self, world: World, vpc: Vpc, rate: float) -> None:
        self._world, self._vpc, self._rate = world, vpc, rate
        self._vteps = {str(host.place.id): host.place.vtep for host in world.hosts}
        self._learned: dict[str, int] = {}
        self._room = asyncio.Semaphore(_IN_FLIGHT)
        self.outcome = Outcome()

    async def run(self, seconds: float) -> None:
        """Start changes for so long; returns when each has taken effect or is lost."""
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(int(seconds * self._rate)):
                due = begun + number / self._rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                await self._room.acquire()
                tasks.create_task(self._one(number, due))

    async def _one(self, number: int, due: float) -> None:
        try:
            alive = self.outcome.alive
            if number % 2 and len(alive) >= min(_HELD, int(self._rate)):
                await self._delete(alive.popleft(), due)
            else:
                await self._create(number, due)
        except (ApiRefused, ApiGone):
            self.outcome.refused += 1
        except TimeoutError:
            self.outcome.lost += 1
        finally:
            self._room.release()

    async def _create(self, number: int, due: float) -> None:
        hosts = self._world.hosts
        host, other = hosts[number % len(hosts)], (number + 1) % len(hosts)
        created = await self._world.tenant.create(self._vpc, host.place, f"churn-{number}")
        targets = self._vpc.targets([created], [host.place.vtep])
        known = await self._world.watch.until_met(targets, _WAIT_S)
        self.outcome.seconds.append(known - due)
        if number % _FRESH_EVERY == 0 and len(hosts) > 1:
            await self._learn(other, created, host.place.vtep)
        self.outcome.alive.append(created)

    async def _learn(self, other: int, created: Created, vtep: IPv4Address) -> None:
        ip = ip_bytes(created.vnics[0].ip)
        host = self._world.hosts[other]
        await waiting.until_learned(host, self._vpc.vni, ip, vtep, _WAIT_S)
        self._learned[created.id] = other

    async def _delete(self, created: Created, due: float) -> None:
        await self._world.tenant.delete(created)
        known = await self._world.watch.until_met(self._vpc.targets([created], [None]), _WAIT_S)
        self.outcome.seconds.append(known - due)
        holder = self._learned.pop(created.id, None)
        if holder is None:
            return
        path, ip = self._world.hosts[holder].path, ip_bytes(created.vnics[0].ip)
        vtep = int(self._vteps[created.host_id])
        gone = await waiting.until(
            lambda: path.vtep_of(self._vpc.vni, ip) != vtep, "a host still holds a route", _WAIT_S
        )
        self.outcome.fresh.append(max(0.0, gone - known))


async def measure(world: World, vpc: Vpc, rate: float, seconds: float) -> Churn:
    """Churn for so long, then take away what is left of it."""
    churning = Churning(world, vpc, rate)
    begun = time.perf_counter()
    await churning.run(seconds)
    took = time.perf_counter() - begun
    outcome = churning.outcome
    await world.tenant.delete_many(list(outcome.alive))
    if not outcome.seconds:
        raise TimeoutError(f"no change of {int(rate * seconds)} took effect")
    p50, p99 = (np.percentile(outcome.seconds, [50, 99]) * 1e3).round(2).tolist()
    fresh = outcome.fresh
    return Churn(
        rate_per_s=round(len(outcome.seconds) / took, 1),
        wanted_per_s=rate,
        seconds=round(took, 1),
        p50_ms=p50,
        p99_ms=p99,
        lost=outcome.lost,
        freshness_p99_ms=round(float(np.percentile(fresh, 99)) * 1e3, 1) if fresh else None,
        refused=outcome.refused,
    )
