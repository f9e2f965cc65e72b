"""Slots of an array that the packet path indexes, taken and freed in batches.

As in `slots.SlotPool`, whose slots come and go one by one, they rest before reuse.
"""

import asyncio
import time
from collections import deque
from typing import Final

import numpy as np
import numpy.typing as npt

Slots = npt.NDArray[np.intp]

REST_S: Final = 0.1
"""A packet in flight may still read a slot that was just freed, but never for so long."""


class SlotStack:
    """The free ones of the slots from ``first`` up to ``end``, which is none of them."""

    def __init__(self, first: int, end: int, used: Slots, *, rest_s: float = REST_S) -> None:
        """``used``: slots that are taken already, in any order."""
        self._fresh = max(first, int(used.max(initial=0)) + 1)  # from here on never used
        self._end = end
        self._free = np.zeros(max(0, end - first), np.int32)  # resident as it fills
        self._count = 0
        self._resting: deque[tuple[float, Slots]] = deque()
        self._rest_s = rest_s
        self._push(np.setdiff1d(np.arange(first, self._fresh), used, assume_unique=True))

    async def take(self, count: int) -> Slots:
        """``count`` slots, as soon as so many have rested. Raises ValueError if there are fewer."""
        while (left := self._count + self._end - self._fresh) < count:
            if not self._resting:
                raise ValueError(f"{count} slots are wanted, {left} are left")
            due, slots = self._resting[0]
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self._resting.popleft()
            self._push(slots)
        reused = min(count, self._count)
        self._count -= reused
        fresh = np.arange(self._fresh, self._fresh + count - reused)
        self._fresh += len(fresh)
        return np.concatenate((self._free[self._count : self._count + reused], fresh))

    def give_back(self, slots: Slots) -> None:
        """Free slots that were taken. One task takes and gives back."""
        if len(slots):
            self._resting.append((time.monotonic() + self._rest_s, slots))

    def _push(self, slots: Slots) -> None:
        self._free[self._count : self._count + len(slots)] = slots
        self._count += len(slots)
