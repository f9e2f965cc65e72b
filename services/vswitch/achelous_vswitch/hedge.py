"""Asking one after the other without waiting long for any (Dean and Barroso, The Tail at Scale)."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

A = TypeVar("A")
T = TypeVar("T")


@asynccontextmanager
async def hedged(
    asked: Iterable[A], ask: Callable[[A], Awaitable[T]], patience: float
) -> AsyncIterator[AsyncIterator[T]]:
    """Results of ``ask`` as they come. Whoever leaves has enough: what still runs is cancelled.

    The next of ``asked`` is turned to when a result has been taken and was not enough, or when none
    has come for ``patience`` seconds; those before it may answer all the same.
    """
    waiting: set[asyncio.Task[T]] = set()

    async def results() -> AsyncGenerator[T, None]:
        nonlocal waiting
        left = list(asked)
        while left or waiting:
            if left:
                waiting.add(asyncio.ensure_future(_run(ask, left.pop(0))))
            done, waiting = await asyncio.wait(
                waiting,
                timeout=patience if left else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                yield task.result()

    found = results()
    try:
        yield found
    finally:
        await found.aclose()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _run(ask: Callable[[A], Awaitable[T]], whom: A) -> T:
    return await ask(whom)
