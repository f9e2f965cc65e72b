"""Whoever is silent holds nobody up."""

import asyncio

import pytest

from achelous_vswitch.hedge import Hedged


class Peers:
    """Numbers answer with themselves, at once or when they are let."""

    def __init__(self, *silent: int) -> None:
        self.asked: list[int] = []
        self.cancelled: list[int] = []
        self.release = {number: asyncio.Event() for number in silent}

    async def ask(self, number: int) -> int:
        self.asked.append(number)
        try:
            if number in self.release:
                await self.release[number].wait()
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        return number


async def first(peers: Peers, numbers: list[int], enough: int) -> int | None:
    async with Hedged(numbers, peers.ask, patience=0.02) as answers:
        async for answer in answers:
            if answer >= enough:
                return answer
    return None


async def test_one_that_answers_is_enough() -> None:
    peers = Peers()
    assert await first(peers, [1, 2], enough=1) == 1
    assert peers.asked == [1]


async def test_the_next_is_asked_when_an_answer_was_not_enough() -> None:
    peers = Peers()
    assert await first(peers, [1, 2, 3], enough=2) == 2
    assert peers.asked == [1, 2]


async def test_a_silent_one_is_overtaken_and_let_go() -> None:
    peers = Peers(1)
    assert await first(peers, [1, 2, 3], enough=1) == 2
    assert (peers.asked, peers.cancelled) == ([1, 2], [1])


async def test_one_that_was_silent_may_still_be_the_one() -> None:
    peers = Peers(1, 2)
    asking = asyncio.create_task(first(peers, [1, 2], enough=1))
    async with asyncio.timeout(5):
        while len(peers.asked) < 2:  # noqa: ASYNC110 - the peers have no event for it
            await asyncio.sleep(0.005)
    peers.release[1].set()
    assert await asking == 1


async def test_nobody_has_enough() -> None:
    assert await first(Peers(), [1, 2], enough=9) is None


async def test_a_failure_is_the_askers() -> None:
    async def fail(_: int) -> int:
        raise ValueError("broken")

    async def ask() -> None:
        async with Hedged([1], fail, patience=1) as answers:
            async for _ in answers:
                pass

    with pytest.raises(ValueError, match="broken"):
        await ask()
