"""Turns are taken in order, by so many at once, and nobody waits without an end."""

import asyncio

import pytest

from achelous_controller.api.turns import Turns
from achelous_controller.domain.errors import Unavailable


async def test_so_many_have_a_turn_and_the_others_follow_in_order() -> None:
    turns = Turns(at_once=2, in_line=8, seconds=10)
    begun: list[int] = []
    two, go = asyncio.Event(), asyncio.Event()

    async def take(number: int) -> None:
        async with turns.turn():
            begun.append(number)
            if len(begun) == 2:
                two.set()
            await go.wait()

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(take(number))
        await two.wait()
        assert begun == [0, 1]
        go.set()
    assert begun == list(range(6))


async def test_who_is_one_too_many_or_waits_too_long_is_told_so() -> None:
    turns = Turns(at_once=1, in_line=1, seconds=0.01)

    async def wait() -> None:
        async with turns.turn():
            pass

    async with turns.turn():
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="1 like it wait"):
            await wait()
        with pytest.raises(Unavailable, match=r"took 0\.01 s"):
            await waiting
    await wait()  # nothing is left of them
