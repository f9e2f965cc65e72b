"""Asking one after the other without waiting long for any (Dean and Barroso, The Tail at Scale)."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, Self, TypeVar

A = TypeVar("A")
T = TypeVar("T")


class Hedged(Generic[A, T]):
    """Results of ``ask`` as they come. Whoever leaves has enough: what still runs is cancelled.

    The next of ``asked`` is turned to when a result has been taken and was not enough, or when none
    has come for ``patience`` seconds; those before it may answer all the same.
    """

    def __init__(
        self, asked: Iterable[A], ask: Callable[[A], Awaitable[T]], patience: float
    ) -> None:
        self._left = deque(asked)
        self._ask = ask
        self._patience = patience
        self._running: set[asyncio.Future[T]] = set()
        self._ended: deque[asyncio.Future[T]] = deque()
        self._wake: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.gather(*self._running, return_exceptions=True)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._ended:
            if self._left:
                task = asyncio.ensure_future(self._ask(self._left.popleft()))
                self._running.add(task)
                task.add_done_callback(self._end)
            elif not self._running:
                raise StopAsyncIteration
            await self._some_time()
        return self._ended.popleft().result()

    async def _some_time(self) -> None:
        """Until one has ended or, while there is another one to ask, for as long as we wait."""
        loop = asyncio.get_running_loop()
        self._wake = loop.create_future()
        timer = loop.call_later(self._patience, self._wake_up) if self._left else None
        try:
            await self._wake
        finally:
            self._wake = None
            if timer is not None:
                timer.cancel()

    def _end(self, task: "asyncio.Future[T]") -> None:
        self._running.discard(task)
        self._ended.append(task)
        self._wake_up()

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
