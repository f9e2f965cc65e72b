"""Changes at a steady rate, whatever the platform makes of them: creations, deletions, moves.

The times are from when a change was due, so that a platform that falls behind cannot hide it.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import msgspec
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
_TICK_S: Final = 0.002
"""What is due meanwhile is started together, late by that much at most."""
_PACKET_S: Final = 0.01
"""A guest sends so often to what its host has not learned yet."""
_IN_FLIGHT: Final = 2_000
_HELD: Final = 400
"""Instances that are alive before the first is deleted or moved."""
_MOVE_EVERY: Final = 10
"""Of so many changes one is a move; of the others each second one is a deletion."""
_FRESH_EVERY: Final = 40
_FRESH_HOSTS: Final = 4
"""Of so many changes one is a creation on one of a few simulated hosts that another of them learns,
to see how late it acts on a move or the end. The rest is on parked hosts: agents would take the
CPUs from what is measured."""


@dataclass(slots=True)
class Outcome:
    """Seconds of each change that took effect, of the moves among them; what did not take effect.

    ``fresh``: how long after the last gateway a host acted on a change of what it had learned;
    ``fresh_moves``: those of moves among them.
    """

    seconds: list[float] = field(default_factory=list)
    moves: list[float] = field(default_factory=list)
    fresh: list[float] = field(default_factory=list)
    fresh_moves: list[float] = field(default_factory=list)
    started: int = 0
    refused: int = 0
    lost: int = 0
    alive: "deque[_Alive]" = field(default_factory=deque)


class _Alive(msgspec.Struct, frozen=True):
    """``holder``: the number of the simulated host that has learned it."""

    created: Created
    place: Place
    holder: int | None


class Churning:
    """Changes of one VPC, of ``rate`` a second. ``places``: parked hosts."""

    def __init__(self, world: World, vpc: Vpc, rate: float, places: list[Place]) -> None:
        self._world, self._vpc, self._rate, self._places = world, vpc, rate, places
        self._simulated = world.hosts[:_FRESH_HOSTS]
        self._due: asyncio.Queue[tuple[int, float] | None] = asyncio.Queue()
        self.outcome = Outcome()

    async def run(self, seconds: float) -> None:
        """Start changes for so long; returns when each has taken effect or is lost.

        With 2,000 under way no other starts; those that were due meanwhile are late.
        """
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_IN_FLIGHT):  # a task of its own for each change would cost more
                tasks.create_task(self._work(begun + seconds))
            await self._start(begun, seconds)
            for _ in range(_IN_FLIGHT):
                self._due.put_nowait(None)

    async def _start(self, begun: float, seconds: float) -> None:
        for number in range(int(seconds * self._rate)):
            due = begun + number / self._rate
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(max(early, _TICK_S))
            self._due.put_nowait((number, due))

    async def _work(self, end: float) -> None:
        while (job := await self._due.get()) is not None:
            if time.perf_counter() > end:
                continue  # all were under way until now
            self.outcome.started += 1
            try:
                await self._one(*job)
            except (ApiRefused, ApiGone):
                self.outcome.refused += 1
            except TimeoutError:
                self.outcome.lost += 1

    async def _one(self, number: int, due: float) -> None:
        alive, moves = self.outcome.alive, number % _MOVE_EVERY == _MOVE_EVERY - 1
        creates = not moves and (number - number // _MOVE_EVERY) % 2 == 0
        if creates or len(alive) < min(_HELD, self._rate):
            await self._create(number, due)
        elif moves:
            await self._move(alive.popleft(), number, due)
        else:
            await self._delete(alive.popleft(), due)

    async def _create(self, number: int, due: float) -> None:
        holder: int | None = None
        place = self._place(number)
        if number % _FRESH_EVERY == 0 and len(self._simulated) > 1:
            place, holder = self._simulated_place(number // _FRESH_EVERY)
        created = await self._world.tenant.create(self._vpc, place, f"churn-{number}")
        await self._in_effect(created, place, due)
        if holder is not None:
            ip = ip_bytes(created.vnics[0].ip)
            host, vni = self._simulated[holder], self._vpc.vni
            await waiting.until_learned(host, vni, ip, place.vtep, _WAIT_S, packet_s=_PACKET_S)
        self.outcome.alive.append(_Alive(created, place, holder))

    async def _move(self, old: _Alive, number: int, due: float) -> None:
        place = self._other_place(old, number)
        await self._world.tenant.move(old.created, place)
        known = await self._in_effect(old.created, place, due)
        self.outcome.moves.append(known - due)
        if old.holder is not None:
            self.outcome.fresh_moves.append(await self._let_go(old, old.holder, known))
        self.outcome.alive.append(_Alive(old.created, place, old.holder))

    async def _delete(self, old: _Alive, due: float) -> None:
        await self._world.tenant.delete(old.created)
        known = await self._in_effect(old.created, None, due)
        if old.holder is not None:
            await self._let_go(old, old.holder, known)

    async def _in_effect(self, created: Created, place: Place | None, due: float) -> float:
        """When all gateways had the change."""
        targets = self._vpc.targets([created], [place.vtep if place else None])
        known = await self._world.watch.until_met(targets, _WAIT_S)
        self.outcome.seconds.append(known - due)
        return known

    async def _let_go(self, old: _Alive, holder: int, known: float) -> float:
        """How long after the gateways the host that had learned it sends nothing there any more."""
        host, ip = self._simulated[holder], ip_bytes(old.created.vnics[0].ip)
        gone = await waiting.until(
            lambda: not host.holds(self._vpc.vni, ip, old.place.vtep),
            "a host still holds a route",
            _WAIT_S,
            host,
        )
        fresh = max(0.0, gone - known)
        self.outcome.fresh.append(fresh)
        return fresh

    def _place(self, number: int) -> Place:
        return self._places[number % len(self._places)]

    def _simulated_place(self, turn: int) -> tuple[Place, int]:
        """A simulated host, and the number of another one."""
        hosts = self._simulated
        return hosts[turn % len(hosts)].place, (turn + 1) % len(hosts)

    def _other_place(self, old: _Alive, number: int) -> Place:
        """Where one moves to: of the same kind, and no host that is concerned already."""
        if old.holder is None:
            place = self._place(number)
            return place if place != old.place else self._place(number + 1)
        held = {old.place.id, self._simulated[old.holder].place.id}
        free = [host.place for host in self._simulated if host.place.id not in held]
        return free[0] if free else self._place(number)


async def measure(world: World, vpc: Vpc, rate: float, seconds: float) -> Churn:
    """Churn for so long, then take away what is left of it."""
    churning = Churning(world, vpc, rate, await world.churned_hosts())
    before, begun = world.usage.cpu_seconds(), time.perf_counter()
    await churning.run(seconds)
    took, spent = time.perf_counter() - begun, world.usage.spent_since(before)
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
        freshness_moved_p99_ms=(
            _milliseconds(outcome.fresh_moves, 99)[0] if outcome.fresh_moves else None
        ),
        freshness_samples=len(outcome.fresh),
        refused=outcome.refused,
        not_started=int(seconds * rate) - outcome.started,
        moves=len(outcome.moves),
        move_p99_ms=_milliseconds(outcome.moves, 99)[0] if outcome.moves else None,
        cpu_ms_per_change={
            name: round(seconds * 1e3 / len(outcome.seconds), 3) for name, seconds in spent.items()
        },
    )


def _milliseconds(seconds: list[float], *parts: float) -> list[float]:
    found: list[float] = (np.percentile(seconds, parts) * 1e3).round(2).tolist()
    return found
