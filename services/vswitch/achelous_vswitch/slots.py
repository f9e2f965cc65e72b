"""Slots of an array that the packet path indexes: taken, freed, and left to rest before reuse."""

from collections import deque
from collections.abc import Iterable


class SlotPool:
    """Free slots of one array.

    A packet in flight may still read a slot that was just freed: it rests for ``rest_s`` seconds,
    ages longer than any packet spends in a program, before it is given to anyone else.
    """

    def __init__(self, free: Iterable[int], *, rest_s: float = 1.0) -> None:
        self._free = deque(free)
        self._resting: deque[tuple[float, int]] = deque()
        self._rest_s = rest_s

    def __len__(self) -> int:
        """Slots that are free or resting."""
        return len(self._free) + len(self._resting)

    def take(self, now: float) -> int | None:
        """A slot at rest since before ``now`` (seconds) less the rest, or None if there is none."""
        while self._resting and self._resting[0][0] <= now - self._rest_s:
            self._free.append(self._resting.popleft()[1])
        return self._free.popleft() if self._free else None

    def give_back(self, slot: int, now: float) -> None:
        """Free ``slot``; ``now`` never runs backwards from call to call."""
        self._resting.append((now, slot))
