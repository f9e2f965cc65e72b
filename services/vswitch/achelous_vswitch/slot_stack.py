"""Slots of an array that the packet path indexes, taken and freed in batches.

As `slots.SlotPool`, whose slots come and go one by one, they rest before reuse.
"""

import asyncio
import time
from collections import deque
from typing import Final

import numpy as np
import numpy.typing as npt

Slots = npt.NDArray[np.intp]

REST_S: Final = 0.1
"""A packet in flight may still read a slot that was just freed: far longer than any takes."""


class SlotStack:
    """Free slots of one array."""

    def __init__(self, free: Slots, *, rest_s: float = REST_S) -> None:
        self._free = free.copy()
        self._count = len(free)
        self._resting: deque[tuple[float, Slots]] = deque()
        self._rest_s = rest_s

    async def take(self, count: int) -> Slots:
        """``count`` slots, as soon as so many have rested; more than there are never come."""
        while self._count < count:
            if not self._resting:
                raise ValueError(f"{count} slots are wanted and {self._count} are free")
            due, slots = self._resting.popleft()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self._push(slots)
        self._count -= count
        return self._free[self._count : self._count + count].copy()

    def give_back(self, slots: Slots) -> None:
        """Free slots that were taken."""
        if len(slots):
            self._resting.append((time.monotonic() + self._rest_s, slots))

    def _push(self, slots: Slots) -> None:
        need = self._count + len(slots)
        if need > len(self._free):
            self._free = np.concatenate((self._free[: self._count], np.zeros(need, np.intp)))
        self._free[self._count : need] = slots
        self._count = need
