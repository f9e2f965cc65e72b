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
    """The free ones of ``size`` slots."""

    def __init__(self, size: int, free: Slots, *, rest_s: float = REST_S) -> None:
        self._free = np.zeros(size, np.int32)
        self._count = 0
        self._resting: deque[tuple[float, Slots]] = deque()
        self._rest_s = rest_s
        self._push(free)

    async def take(self, count: int) -> Slots:
        """``count`` slots, as soon as so many have rested. Raises ValueError if there are fewer."""
        while self._count < count:
            if not self._resting:
                raise ValueError(f"{count} slots are wanted, {self._count} are left")
            due, slots = self._resting[0]
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self._resting.popleft()
            self._push(slots)
        self._count -= count
        return self._free[self._count : self._count + count].astype(np.intp)

    def give_back(self, slots: Slots) -> None:
        """Free slots that were taken. One task takes and gives back."""
        if len(slots):
            self._resting.append((time.monotonic() + self._rest_s, slots))

    def _push(self, slots: Slots) -> None:
        self._free[self._count : self._count + len(slots)] = slots
        self._count += len(slots)
