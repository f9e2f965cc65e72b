"""What is asked for at once is carried out together, in order, and each is answered."""

import asyncio
from collections.abc import Sequence

import pytest

from achelous_controller.store.gathering import Gatherer, Lanes


class Work:
    """Doubles numbers, when it is let; keeps the groups that it was given."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.open = asyncio.Event()

    async def __call__(self, items: Sequence[int]) -> list[int | BaseException]:
        self.groups.append(list(items))
        await self.open.wait()
        return [ValueError(f"{item} is odd") if item % 2 else 2 * item for item in items]


async def test_those_that_come_meanwhile_share_the_next_group() -> None:
    work = Work()
    gatherer: Gatherer[int, int] = Gatherer(work, limit=3)
    results = [asyncio.create_task(gatherer.submit(item)) for item in (0, 2, 4, 6, 8)]
    await asyncio.sleep(0)
    late = [asyncio.create_task(gatherer.submit(item)) for item in (10, 12)]
    await asyncio.sleep(0)
    work.open.set()

    assert await asyncio.gather(*results, *late) == [0, 4, 8, 12, 16, 20, 24]
    assert work.groups == [[0, 2, 4], [6, 8, 10], [12]]
    assert gatherer.idle


async def test_each_has_its_own_error() -> None:
    work = Work()
    work.open.set()
    gatherer: Gatherer[int, int] = Gatherer(work, limit=10)

    found = await asyncio.gather(*map(gatherer.submit, (1, 2, 3)), return_exceptions=True)

    assert [str(one) for one in found] == ["1 is odd", "4", "3 is odd"]


async def test_equal_ones_are_kept_apart_in_their_order() -> None:
    work = Work()
    work.open.set()
    gatherer: Gatherer[int, int] = Gatherer(work, limit=10, apart=lambda item: item)

    await asyncio.gather(*map(gatherer.submit, (2, 4, 2, 6)))

    assert work.groups == [[2, 4], [2, 6]]


async def test_who_gives_up_takes_nothing_from_the_others() -> None:
    work = Work()
    gatherer: Gatherer[int, int] = Gatherer(work, limit=10)
    first, second = (asyncio.create_task(gatherer.submit(item)) for item in (2, 4))
    await asyncio.sleep(0)
    first.cancel()
    work.open.set()

    assert await second == 8
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_work_that_fails_is_told_to_all_and_the_next_is_done() -> None:
    failures = [OSError("gone")]

    async def work(items: Sequence[int]) -> list[int]:
        if failures:
            raise failures.pop()
        return list(items)

    gatherer: Gatherer[int, int] = Gatherer(work, limit=2)

    found = await asyncio.gather(*map(gatherer.submit, (1, 2, 3)), return_exceptions=True)

    assert [str(one) for one in found] == ["gone", "gone", "3"]


async def test_what_comes_while_others_have_the_turn_joins() -> None:
    turn = asyncio.Lock()
    works = [Work(), Work()]
    one, other = (Gatherer[int, int](work, limit=10, turn=turn) for work in works)
    first = asyncio.create_task(one.submit(2))
    await asyncio.sleep(0)
    results = []
    for item in (4, 6):
        results.append(asyncio.create_task(other.submit(item)))
        await asyncio.sleep(0)
    assert works[1].groups == []
    for work in works:
        work.open.set()

    assert await asyncio.gather(first, *results) == [4, 8, 12]
    assert works[1].groups == [[4, 6]]


async def test_only_a_group_of_several_is_followed_by_a_rest() -> None:
    work = Work()
    work.open.set()
    gatherer: Gatherer[int, int] = Gatherer(work, limit=10, rest_s=60)

    for item in (2, 4):
        assert await gatherer.submit(item) == 2 * item
    await asyncio.gather(*map(gatherer.submit, (2, 4)))

    assert gatherer.idle
    late = asyncio.create_task(gatherer.submit(6))
    await asyncio.sleep(0)
    assert not gatherer.idle
    late.cancel()


async def test_a_lane_that_rests_is_forgotten() -> None:
    work = Work()
    work.open.set()
    made: list[Gatherer[int, int]] = []

    def make(_: str) -> Gatherer[int, int]:
        made.append(Gatherer(work, limit=10, rest_s=60))
        return made[-1]

    lanes: Lanes[str, int, int] = Lanes(make)
    await asyncio.gather(*(lanes.submit("a", item) for item in (2, 4)))
    await lanes.submit("a", 6)

    assert len(made) == 2


async def test_lanes_do_not_wait_for_each_other() -> None:
    blocked, free = Work(), Work()
    free.open.set()
    works = {"blocked": blocked, "free": free}
    lanes: Lanes[str, int, int] = Lanes(lambda key: Gatherer(works[key], limit=10))

    stuck = asyncio.create_task(lanes.submit("blocked", 2))

    assert await lanes.submit("free", 4) == 8
    assert not stuck.done()
    blocked.open.set()
    assert await stuck == 4
