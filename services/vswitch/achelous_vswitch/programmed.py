"""Routes that are programmed ahead, as the packet path holds them.

They have the slots of `fc` above those of the forwarding cache, and share its index.

What `ach_layout.h` asks for holds here as well: a changed route gets another slot, then the index
names it, and then the old slot's generation moves on. All of it is in batches.
"""

from typing import Final

import numpy as np

from achelous_shared.route_following.index import Rows
from achelous_shared.route_following.table import KEY, VALUE, Changes, Records, RouteTable
from achelous_vswitch.dataplane import Array, Table
from achelous_vswitch.fc import ForwardingCache
from achelous_vswitch.slot_stack import REST_S, Slots, SlotStack

NO_LIMIT: Final = 0xFFFF
"""MTU of a route that was not asked for by RSP: the port's and the underlay's decide."""


_SPARE: Final = 32_768
"""A burst of 20,000 changes waits for nothing."""


def slots_for(routes: int) -> int:
    """Slots for so many routes, and some more: those of routes that change rest for a while."""
    return routes + _spare(routes) if routes else 0


def _spare(routes: int) -> int:
    return max(256, min(routes, _SPARE), routes // 16)


class ProgrammedSlots:
    """Slots above those of the cache, for the routes of a table that has ``capacity`` rows."""

    def __init__(
        self,
        entries: Array,
        index: Table,
        cache: ForwardingCache,
        capacity: int,
        *,
        rest_s: float = REST_S,
    ) -> None:
        """``entries`` and ``index``: all of them, of which ``cache`` has the first slots.

        Nothing is adopted yet: `adopt` must be called once, before anything else.
        """
        first = len(cache.entries)
        self._entries = entries
        self._first = first
        self._index = index
        self._cache = cache
        self._batch = _spare(capacity)
        self._slot_of = np.zeros(capacity + 2, np.uint32)  # by row of the table, 0: none
        self._pool = SlotStack(first, first, np.zeros(0, np.intp))
        self._rest_s = rest_s

    def adopt(self, table: RouteTable) -> None:
        """Put what index and entry agree upon into ``table``, as far as it fits; drop the rest."""
        keys, found = self._index.lookup_batch_all()
        ours = found >= self._first
        keys, slots = keys[ours], found[ours].astype(np.intp)
        held = self._entries[slots]
        sound = (held["generation"] % 2 == 1) & (held["vni"] == keys["vni"])
        sound &= (held["ip"] == keys["ip"]).all(axis=-1)
        sound &= np.cumsum(sound) <= table.capacity
        self._index.delete_batch(keys[~sound])
        slots, kept = slots[sound], _converted(keys[sound], KEY)
        table.seed(kept, _converted(held[sound], VALUE))
        self._slot_of[table.lookup(kept["vni"], kept["ip"])] = slots
        self._free_all_but(slots)

    async def apply(self, changes: Changes) -> None:
        """See Sink."""
        if len(changes.removed):
            self._index.delete_batch(_converted(changes.removed, self._index.key_dtype))
            self._retire(changes.removed_rows)
        for vni in np.unique(changes.keys["vni"]).tolist():
            self._cache.give_way(vni, changes.keys["ip"][changes.keys["vni"] == vni])
        for at in range(0, len(changes.rows), self._batch):
            part = slice(at, at + self._batch)
            await self._write(changes.rows[part], changes.keys[part], changes.values[part])

    async def _write(self, rows: Rows, keys: Records, values: Records) -> None:
        slots = await self._pool.take(len(rows))
        entries = np.zeros(len(rows), self._entries.dtype)
        for name in KEY.names or ():
            entries[name] = keys[name]
        for name in VALUE.names or ():
            entries[name] = values[name]
        entries["mtu"] = NO_LIMIT
        entries["generation"] = self._entries["generation"][slots] + np.uint32(1)  # odd: in use
        self._entries[slots] = entries
        self._index.update_batch(
            _converted(keys, self._index.key_dtype), slots.astype(self._index.value_dtype)
        )
        self._retire(rows)
        self._slot_of[rows] = slots

    def _retire(self, rows: Rows) -> None:
        """End the slots that these rows had."""
        slots = self._slot_of[rows].astype(np.intp)
        slots = slots[slots != 0]
        self._slot_of[rows] = 0
        self._entries["generation"][slots] += np.uint32(1)  # even: free
        self._pool.give_back(slots)

    def _free_all_but(self, used: Slots) -> None:
        in_use = self._first + np.flatnonzero(self._entries["generation"][self._first :] % 2)
        strays = np.setdiff1d(in_use, used, assume_unique=True)
        self._entries["generation"][strays] += np.uint32(1)
        end = max(self._first, len(self._entries))
        self._pool = SlotStack(self._first, end, used, rest_s=self._rest_s)


def _converted(records: Array, dtype: np.dtype[np.void]) -> Array:
    """The fields that ``dtype`` names, of records that have them."""
    converted = np.zeros(len(records), dtype)
    for name in dtype.names or ():
        converted[name] = records[name]
    return converted
