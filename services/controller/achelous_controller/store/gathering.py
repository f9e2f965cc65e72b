"""Group commit: what is asked for while the database is busy is carried out together.

A transaction costs the same for one change as for fifty, and changes of one VPC wait for each other
anyway. Nobody waits for company: a request that comes alone starts at once.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

import asyncpg
from sqlalchemy.exc import IntegrityError

from achelous_controller.domain.errors import Refused, Unavailable
from achelous_controller.store.database import despite_deadlocks

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
R = TypeVar("R")

_MAX_WAITING: Final = 10_000

Work = Callable[[Sequence[T]], Awaitable[Sequence[R | BaseException]]]
"""The result of each item, or why it has none, in their order."""


class _Waiting(NamedTuple, Generic[T, R]):
    item: T
    result: asyncio.Future[R]


class Gatherer(Generic[T, R]):
    """Carries out items by ``work``, one group at a time, in the order in which they came.

    ``limit``: items of a group. ``apart``: items with an equal, not None value of it never share a
    group. ``turn``: held during work; a group is made when it is had, so that what comes while
    others have it still joins. ``rest_s``: it is kept for so long after a group of several, so
    that under load groups are larger. Each item was handed in before the work that serves it
    began, so it sees all that was done before.
    """

    def __init__(
        self,
        work: Work[T, R],
        limit: int,
        apart: Callable[[T], Hashable | None] = lambda _: None,
        turn: asyncio.Lock | None = None,
        rest_s: float = 0.0,
    ) -> None:
        self._work = work
        self._turn = turn or asyncio.Lock()
        self._rest_s = rest_s
        self._resting = False
        self._limit = limit
        self._apart = apart
        self._waiting: deque[_Waiting[T, R]] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is being carried out."""
        return self._task is None or (self._resting and not self._waiting)

    async def submit(self, item: T) -> R:
        """The item's result; raises its exception, and `Unavailable` when too many wait."""
        if len(self._waiting) >= _MAX_WAITING:
            raise Unavailable(f"{len(self._waiting)} requests wait already: come back later")
        waiting: _Waiting[T, R] = _Waiting(item, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        return await waiting.result

    async def _drain(self) -> None:
        group: list[_Waiting[T, R]] = []
        try:
            while self._waiting:
                async with self._turn:
                    group = self._next()
                    _settle(group, await self._results(group))
                    several, group = len(group) > 1, []
                    if several and self._rest_s:
                        await self._rest()
        finally:
            self._task = None
            for left in (*group, *self._waiting):  # cancelled: the process ends
                left.result.cancel()
            self._waiting.clear()

    async def _rest(self) -> None:
        self._resting = True
        try:
            await asyncio.sleep(self._rest_s)
        finally:
            self._resting = False

    async def _results(self, group: Sequence[_Waiting[T, R]]) -> Sequence[R | BaseException]:
        try:
            return await self._work([waiting.item for waiting in group])
        except Exception as error:
            return [error] * len(group)

    def _next(self) -> list[_Waiting[T, R]]:
        group: list[_Waiting[T, R]] = []
        taken: set[Hashable] = set()
        while self._waiting and len(group) < self._limit:
            apart = self._apart(self._waiting[0].item)
            if apart is not None and apart in taken:
                break
            taken.add(apart)
            group.append(self._waiting.popleft())
        return group


def _settle(group: Sequence[_Waiting[T, R]], results: Sequence[R | BaseException]) -> None:
    for waiting, result in zip(group, results, strict=True):
        if waiting.result.done():  # who asked is gone
            continue
        if isinstance(result, BaseException):
            waiting.result.set_exception(result)
        else:
            waiting.result.set_result(result)


class Lanes(Generic[K, T, R]):
    """A `Gatherer` for each key: those of one key wait for each other, others do not for them."""

    def __init__(self, make: Callable[[K], Gatherer[T, R]]) -> None:
        self._make = make
        self._lanes: dict[K, Gatherer[T, R]] = {}

    async def submit(self, key: K, item: T) -> R:
        """The item's result; see `Gatherer.submit`."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = self._make(key)
        try:
            return await lane.submit(item)
        finally:
            if lane.idle and self._lanes.get(key) is lane:
                del self._lanes[key]


async def together(
    items: Sequence[T], transaction: Callable[[Sequence[T]], Awaitable[Sequence[R]]]
) -> list[R | BaseException]:
    """Carry out all items in one transaction, or each in a smaller one if one of them is refused.

    A refusal undoes the transaction; halves are tried until what is refused stands alone, with the
    error that it would have met alone.
    """
    try:
        return [*await despite_deadlocks(lambda: transaction(items))]
    except (Refused, IntegrityError, asyncpg.IntegrityConstraintViolationError) as error:
        if len(items) == 1:
            return [error]
    except Exception as error:
        return [error] * len(items)
    half = len(items) // 2
    return [
        *await together(items[:half], transaction),
        *await together(items[half:], transaction),
    ]
