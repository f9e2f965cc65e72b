"""Taking turns: so many at once, so many more in line, for so long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from achelous_controller.domain.errors import Unavailable


class Turns:
    """``at_once`` have a turn, ``in_line`` wait for one, ``seconds`` at most."""

    def __init__(self, at_once: int, in_line: int, seconds: float) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._in_line, self._seconds = in_line, seconds
        self._waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A turn, in the order in which they were asked for; raises `Unavailable`."""
        if self._waiting >= self._in_line:
            raise Unavailable(f"{self._waiting} like it wait already: come back later")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._seconds):
                await self._free.acquire()
        except TimeoutError:
            raise Unavailable(f"others like it took {self._seconds:g} s: come back later") from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()
