"""The routes in memory that the relay's program reads: one table for it and for RSP.

What the program may find is never rewritten: a route that changes gets another row, then its slot
in the index leads there, and the row that it had rests until no program runs that may have found
it. `routes.h` says why that suffices.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from achelous_shared.bpf import BpfMap, wait_for_programs
from achelous_shared.route_following.index import (
    SLOTS,
    Memory,
    Rows,
    buckets_for,
    random_factors,
)
from achelous_shared.route_following.table import Records, RouteTable

_SPARE_MIN: Final = 4096
_SPARE_MAX: Final = 65_536
_SPARE_PART: Final = 32
"""Of the capacity: rows that rest, or are written before others are free."""


def map_sizes(capacity: int) -> dict[str, int]:
    """Entries of each map for so many routes."""
    rows = capacity + _spare(capacity) + 2
    buckets = buckets_for(rows)
    return {
        "route_buckets": buckets,
        "route_passed": buckets,
        "route_keys": rows,
        "route_values": rows,
    }


def _spare(capacity: int) -> int:
    return min(_SPARE_MAX, max(_SPARE_MIN, capacity // _SPARE_PART))


def memory_of(maps: Mapping[str, BpfMap]) -> Memory:
    """What these maps hold; new ones are made ready first."""
    head = maps["route_table"].mmap()[0]
    slots = maps["route_buckets"].mmap().view(np.uint64).reshape(-1, SLOTS)
    if _is_new(maps):
        head["mask"] = len(slots) - 1
        head["shift"] = 64 - (len(slots) - 1).bit_length()
        head["factors"] = random_factors()
    return Memory(
        keys=maps["route_keys"].mmap().view(np.uint64).reshape(-1, 3),
        values=maps["route_values"].mmap(),
        slots=slots,
        passed=maps["route_passed"].mmap().view(np.int64),
        factors=head["factors"],
    )


def _is_new(maps: Mapping[str, BpfMap]) -> bool:
    """Whether nobody made them ready yet; the factors come last."""
    return not maps["route_table"].mmap()[0]["factors"].all()


class SharedTable(RouteTable):
    """At most ``capacity`` routes, those first that the maps hold already."""

    def __init__(
        self,
        capacity: int,
        maps: Mapping[str, BpfMap],
        wait_for_readers: Callable[[], None] = wait_for_programs,
    ) -> None:
        """``maps``: of the sizes that `map_sizes` gives."""
        new = _is_new(maps)
        super().__init__(capacity, memory_of(maps))
        self._spare = _spare(capacity)
        self._wait_for_readers = wait_for_readers
        self.unsettled = asyncio.Event()
        """Set while so many rows rest that `settle_aside` is worth while."""
        self._resting: list[Rows] = []
        self._settling: list[Rows] = []
        self._rest_left = self._spare // 4  # rows that may still rest before that
        if not new:
            self._adopt()

    def rows_except(self, vni: int, kept: Rows) -> Rows:
        """See RouteTable."""
        rows = super().rows_except(vni, kept)
        used = np.ones(self._unused, np.bool_)
        if resting := self._resting + self._settling:
            used[np.concatenate(resting)] = False
        return rows[used[rows]]

    async def settle_aside(self) -> None:
        """Free the rows that rest, after a wait in another thread. For one task at a time."""
        self._begin_settling()
        await asyncio.to_thread(self._wait_for_readers)
        self._free_settled()

    def _settle(self) -> None:
        self._begin_settling()
        self._wait_for_readers()
        self._free_settled()

    def _begin_settling(self) -> None:
        self._settling, self._resting = self._settling + self._resting, []
        self._rest_left = self._spare // 4
        self.unsettled.clear()

    def _free_settled(self) -> None:
        rested, self._settling = self._settling, []
        if rested:
            super()._release(np.concatenate(rested))

    def _adopt(self) -> None:
        rows = self._index.adopt()
        self._count_all(self._keys[rows, 2].astype(np.int64))
        self._unused = int(rows.max(initial=0)) + 1
        strays = np.ones(self._unused, np.bool_)
        strays[rows] = False
        self._resting.append(np.flatnonzero(strays)[1:])  # the first is never used
        self._settle()

    def _take(self, count: int) -> Rows:
        if count > self._freed + len(self._keys) - 1 - self._unused:
            self._settle()
        return super()._take(count)

    def _rewrite(self, rows: Rows, values: Records) -> Rows:
        written = []
        for at in range(0, len(rows), self._spare):
            old = rows[at : at + self._spare]
            keys, fresh = self._keys.take(old, axis=0), self._take(len(old))
            self._put(fresh, keys, values[at : at + self._spare])
            self._index.replace(keys, old, fresh)
            self._release(old)
            written.append(fresh)
        return np.concatenate(written)

    def _release(self, rows: Rows) -> None:
        if len(rows):
            self._resting.append(rows)
            self._rest_left -= len(rows)
            if self._rest_left < 0:
                self.unsettled.set()
