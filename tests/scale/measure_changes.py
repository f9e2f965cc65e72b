"""Measures what deleting and moving instances costs the store: Python and PostgreSQL apart.

`PYTHONPATH=tests .venv/bin/python -m scale.measure_changes [--rows N]`. As `scale.measure_creation`
does it: CPU times, least of some repetitions, with N instances there already.
"""

import argparse
import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Final
from uuid import UUID

from scale.measure_creation import Backends, Messages, cost, world
from scale.world import say

from achelous_controller.domain.instances import Instance
from achelous_controller.domain.precondition import ANYTHING
from achelous_controller.store.changes import Change
from achelous_controller.store.database import Database
from achelous_controller.store.gathering import together
from achelous_controller.store.moves import Move, move
from achelous_controller.store.withdrawal import withdraw

GROUP: Final = 32
_HOSTS: Final = 2000


class Changes:
    """Of instances that are there, each once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._fresh = count(1)

    def _next(self, size: int) -> Iterator[int]:
        return (next(self._fresh) for _ in range(size))

    async def delete(self, size: int) -> None:
        """A group of as many."""
        now = datetime.now(UTC)
        wanted = [Change(UUID(int=number), ANYTHING, now) for number in self._next(size)]

        _check(await together(wanted, partial(withdraw, self._database, None)), size)

    async def move(self, size: int) -> None:
        """A group of as many, each to the host behind its own."""
        now = datetime.now(UTC)
        wanted = [
            Move(UUID(int=number), ANYTHING, now, UUID(int=(number + 1) % _HOSTS + 1))
            for number in self._next(size)
        ]
        _check(await together(wanted, partial(move, self._database)), size)


def _check(found: Sequence[object], size: int) -> None:
    if sum(isinstance(each, Instance) for each in found) != size:
        raise RuntimeError(str(found))


async def _tell(
    what: str,
    one: Callable[[int], Awaitable[None]],
    backends: Backends,
    messages: Messages,
    times: int,
) -> None:
    for size, rounds in ((1, 200), (GROUP, 40)):

        async def work(size: int = size, rounds: int = rounds) -> None:
            for _ in range(rounds):
                await one(size)

        await work()  # plans are made
        before = messages.sent
        await one(size)
        sent = messages.sent - before
        python, database, clock = await cost(work, backends, size * rounds, times)
        say(
            f"{what}, {size:2} together: {python:6.1f} us Python {database:6.1f} us PostgreSQL"
            f" {clock:7.1f} us, {sent} messages"
        )


async def measure(rows: int, times: int) -> None:
    """Say all figures."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)  # as the controller's own
    async with world(rows) as (client, backends, messages):
        say(f"{rows} instances are there")
        changes = Changes(client.database)
        await _tell("deletions", changes.delete, backends, messages, times)
        await _tell("moves", changes.move, backends, messages, times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=5)
    args = parser.parse_args()
    asyncio.run(measure(args.rows, args.times))


if __name__ == "__main__":
    main()
