"""Changes at a steady rate, whatever the platform makes of them: creations, deletions, moves.

The times are from when a change was due, so that a platform that falls behind cannot hide it.

The API has no migration. A move is what routes see of one: an instance is deleted, and another with
its address is created on another host as soon as the address is free. Its creation is due then.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from achelous_lab.api import ApiRefused
from achelous_loadgen import waiting
from achelous_loadgen.http import ApiGone
from achelous_loadgen.results import Churn
from achelous_loadgen.sim.host import Place
from achelous_loadgen.tenant import Created, Vpc
from achelous_loadgen.world import World
from achelous_shared.routes import ip_bytes

_WAIT_S: Final = 30.0
_GONE_S: Final = 60.0
_IN_FLIGHT: Final = 2_000
_HELD: Final = 400
"""Instances that are alive before the first is deleted again."""
_FRESH_EVERY: Final = 40
_FRESH_HOSTS: Final = 4
"""Of so many changes one is a creation on one of a few simulated hosts that another of them learns,
to see how late it acts on the end. The others are on parked hosts: agents would take the CPUs from
what is measured."""
_MOVE_EVERY: Final = 20


@dataclass(slots=True)
class Outcome:
    """Seconds of each change that took effect, of each move as a whole; what did not."""

    seconds: list[float] = field(default_factory=list)
    moves: list[float] = field(default_factory=list)
    fresh: list[float] = field(default_factory=list)
    started: int = 0
    refused: int = 0
    lost: int = 0
    alive: "deque[_Alive]" = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class _Alive:
    """``holder``: the number of the simulated host that has learned it."""

    created: Created
    place: Place
    holder: int | None


class Churning:
    """Changes of one VPC, of ``rate`` a second. ``places``: parked hosts."""

    def __init__(self, world: World, vpc: Vpc, rate: float, places: list[Place]) -> None:
        self._world, self._vpc, self._rate, self._places = world, vpc, rate, places
        self._room = asyncio.Semaphore(_IN_FLIGHT)
        self.outcome = Outcome()

    async def run(self, seconds: float) -> None:
        """Start changes for so long; returns when each has taken effect or is lost.

        With 2,000 under way no other starts; those that were due meanwhile are late.
        """
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(int(seconds * self._rate)):
                due = begun + number / self._rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                await self._room.acquire()
                if time.perf_counter() - begun > seconds:
                    return
                self.outcome.started += 1
                tasks.create_task(self._one(number, due))

    async def _one(self, number: int, due: float) -> None:
        alive = self.outcome.alive
        old = alive.popleft() if len(alive) >= min(_HELD, self._rate) and number % 2 else None
        try:
            if old is None:
                await self._create(number, due)
                return
            await self._delete(old, due)
            if number % _MOVE_EVERY == 1:
                await self._elsewhere(old, number, due)
        except (ApiRefused, ApiGone):
            self.outcome.refused += 1
        except TimeoutError:
            self.outcome.lost += 1
        finally:
            self._room.release()

    async def _create(self, number: int, due: float) -> None:
        hosts = self._world.hosts[:_FRESH_HOSTS]
        if number % _FRESH_EVERY or len(hosts) < 2:
            place = self._place(number)
            created = await self._create_on(place, number, due)
            self.outcome.alive.append(_Alive(created, place, None))
            return
        turn = number // _FRESH_EVERY
        place, holder = hosts[turn % len(hosts)].place, (turn + 1) % len(hosts)
        created = await self._create_on(place, number, due)
        ip = ip_bytes(created.vnics[0].ip)
        await waiting.until_learned(hosts[holder], self._vpc.vni, ip, place.vtep, _WAIT_S)
        self.outcome.alive.append(_Alive(created, place, holder))

    async def _create_on(
        self, place: Place, number: int, due: float, ip: str | None = None
    ) -> Created:
        created = await self._world.tenant.create(self._vpc, place, f"churn-{number}", ip)
        targets = self._vpc.targets([created], [place.vtep])
        known = await self._world.watch.until_met(targets, _WAIT_S)
        self.outcome.seconds.append(known - due)
        return created

    async def _delete(self, old: _Alive, due: float) -> None:
        await self._world.tenant.delete(old.created)
        targets = self._vpc.targets([old.created], [None])
        known = await self._world.watch.until_met(targets, _WAIT_S)
        self.outcome.seconds.append(known - due)
        if old.holder is None:
            return
        path, ip = self._world.hosts[old.holder].path, ip_bytes(old.created.vnics[0].ip)
        gone = await waiting.until(
            lambda: path.vtep_of(self._vpc.vni, ip) != int(old.place.vtep),
            "a host still holds a route",
            _WAIT_S,
        )
        self.outcome.fresh.append(max(0.0, gone - known))

    async def _elsewhere(self, old: _Alive, number: int, due: float) -> None:
        await self._world.tenant.until_gone(old.created, _GONE_S)
        place = self._place(number + 1)
        if place == old.place:
            place = self._place(number + 2)
        free = time.perf_counter()
        created = await self._create_on(place, number, free, old.created.vnics[0].ip)
        self.outcome.moves.append(time.perf_counter() - due)
        self.outcome.alive.append(_Alive(created, place, None))

    def _place(self, number: int) -> Place:
        return self._places[number % len(self._places)]


async def measure(world: World, vpc: Vpc, rate: float, seconds: float) -> Churn:
    """Churn for so long, then take away what is left of it."""
    churning = Churning(world, vpc, rate, await world.churned_hosts())
    before, begun = world.usage.cpu_seconds(), time.perf_counter()
    await churning.run(seconds)
    took, after = time.perf_counter() - begun, world.usage.cpu_seconds()
    outcome = churning.outcome
    await world.tenant.delete_many([one.created for one in outcome.alive])
    if not outcome.seconds:
        raise TimeoutError(f"no change of {int(rate * seconds)} took effect")
    p50, p99 = _milliseconds(outcome.seconds, 50, 99)
    return Churn(
        rate_per_s=round(len(outcome.seconds) / took, 1),
        wanted_per_s=rate,
        seconds=round(took, 1),
        p50_ms=p50,
        p99_ms=p99,
        lost=outcome.lost,
        freshness_p99_ms=_milliseconds(outcome.fresh, 99)[0] if outcome.fresh else None,
        refused=outcome.refused,
        not_started=int(seconds * rate) - outcome.started,
        moves=len(outcome.moves),
        move_p99_ms=_milliseconds(outcome.moves, 99)[0] if outcome.moves else None,
        cpu_ms_per_change={
            name: round((spent - before.get(name, 0.0)) * 1e3 / len(outcome.seconds), 3)
            for name, spent in after.items()
        },
    )


def _milliseconds(seconds: list[float], *parts: float) -> list[float]:
    found: list[float] = (np.percentile(seconds, parts) * 1e3).round(2).tolist()
    return found
