"""The routes of all VPCs in packed columns: looked up, changed and listed in batches.

No Python object per route and no Python step per entry. The capacity is fixed; memory of the
process's own becomes resident as rows are used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from achelous_shared import names
from achelous_shared.records import fields_of
from achelous_shared.route_following.index import KeyIndex, Keys, Memory, Rows, keys_of
from achelous_shared.routes import ROUTE, RouteOp, Routes

KEY: Final = np.dtype([("vni", "<u4"), ("ip", "u1", (16,))])
"""What a route is found by; the address IPv4 mapped."""

VALUE: Final = np.dtype(
    [("vtep", ">u4"), ("mac", "u1", (6,)), ("identity", "<u2"), ("revision", "<u8")], align=True
)
"""Where a route leads, as C's struct ach_route: see `routes.ROUTE`, whose fields these are."""

_NAMES: Final = ("vtep", "mac", "identity", "revision")
_KEPT: Final = fields_of(VALUE, *_NAMES)
_SENT: Final = fields_of(ROUTE, *_NAMES)

Records = npt.NDArray[np.void]
Chosen = npt.NDArray[np.bool_]

_WHOLE: Final = np.dtype(f"V{VALUE.itemsize}")
"""A key of the index, or a value: both have the same size."""


class TableFull(Exception):
    """The routes do not fit; nothing of the batch was taken."""

    def __init__(self, held: int, more: int, capacity: int) -> None:
        super().__init__(
            f"{more} more routes than the {held} held do not fit into {capacity}: "
            f"raise ACHELOUS_ROUTE_CAPACITY"
        )


@dataclass(frozen=True, slots=True)
class Changes:
    """What a batch of n routes changed in the table, and so must change in the data plane.

    ``removed`` comes first: a row may be another route's already among ``rows``.
    """

    batch: Keys
    batch_values: Records
    """`VALUE`"""
    batch_rows: Rows
    """Where in the table they are, or were."""
    put: Chosen
    """Those that are new or lead elsewhere now."""
    cut: Chosen
    """Those that are gone."""

    # Taken out of the batch for who asks: where packets go by the table itself, nobody does.

    def __len__(self) -> int:
        return int(self.put.sum()) + int(self.cut.sum())

    @property
    def rows(self) -> Rows:
        """Where in the table the routes are that are new or lead elsewhere now."""
        return self.batch_rows[self.put]

    @property
    def keys(self) -> Records:
        """`KEY`, of these."""
        return _records(self.batch[self.put])

    @property
    def values(self) -> Records:
        """`VALUE`, of these."""
        return self.batch_values[self.put]

    @property
    def removed_rows(self) -> Rows:
        """Where the routes were that are gone."""
        return self.batch_rows[self.cut]

    @property
    def removed(self) -> Records:
        """`KEY`, of these."""
        return _records(self.batch[self.cut])

    @classmethod
    def join(cls, parts: Sequence["Changes"]) -> "Changes":
        """The changes of batches of distinct routes as those of one batch."""
        if len(parts) == 1:
            return parts[0]
        none = np.zeros(0, np.bool_)
        return cls(
            np.concatenate([np.zeros((0, 3), np.uint64), *(part.batch for part in parts)]),
            np.concatenate(
                [np.zeros(0, VALUE), *(part.batch_values for part in parts)], dtype=VALUE
            ),
            np.concatenate([np.zeros(0, np.int64), *(part.batch_rows for part in parts)]),
            np.concatenate([none, *(part.put for part in parts)]),
            np.concatenate([none, *(part.cut for part in parts)]),
        )


class RouteTable:
    """At most ``capacity`` routes."""

    def __init__(self, capacity: int, memory: Memory | None = None) -> None:
        """``memory``: for more than ``capacity`` rows; if not given, private."""
        self.capacity = capacity
        memory = memory or Memory.private(capacity + 2, VALUE)  # see KeyIndex for the two
        self._keys: Keys = memory.keys
        self._values: Records = memory.values
        # The same as bytes: numpy copies these whole, and records field by field.
        self._whole_keys = self._keys.view(_WHOLE).reshape(-1)
        self._whole_values = self._values.view(_WHOLE)
        self._index = KeyIndex(memory)
        self._unused = 1  # rows from here on were never used
        self._free = np.zeros(len(self._keys), np.int64)  # a stack of rows that were used once
        self._freed = 0
        self._held = 0
        self._counts = np.zeros(names.VNI_MAX + 1, np.int32)

    def __len__(self) -> int:
        return self._held

    def count(self, vni: int) -> int:
        """Routes of one VPC."""
        return int(self._counts[vni])

    def vnis(self) -> list[int]:
        """VPCs that have routes here, in order."""
        used: list[int] = np.unique(self._keys[1 : self._unused, 2]).tolist()
        return [vni for vni in used if self._counts[vni]]

    def lookup(self, vnis: npt.ArrayLike, ips: npt.NDArray[np.uint8]) -> Rows:
        """Rows of ``vnis`` (n,) or one VNI for all, and ``ips`` (n, 16); -1 where there is none."""
        return self._index.find(keys_of(vnis, ips))

    def values(self, rows: Rows) -> Records:
        """`VALUE` of rows that `lookup` found; zeros where it gave -1."""
        return self._values.take(rows)

    def keys(self, rows: Rows) -> Records:
        """`KEY` of rows."""
        return _records(self._keys[rows])

    def rows_except(self, vni: int, kept: Rows) -> Rows:
        """The rows of one VPC less ``kept``, which are distinct rows of it."""
        if self.count(vni) == len(kept):
            return np.zeros(0, np.int64)
        wanted = self._keys[: self._unused, 2] == vni
        wanted[kept] = False
        return np.flatnonzero(wanted)

    def apply(self, vni: int, delta: Routes) -> Changes:
        """Upsert and delete by a delta whose addresses are distinct (see `latest`).

        An entry counts unless the one held has a higher revision. Raises `TableFull`.
        """
        keys, values = keys_of(vni, delta["ip"]), _values_of(delta)
        rows = self._index.find(keys)
        held, upsert = rows >= 0, delta["op"] == RouteOp.UPSERT
        due = held & (self._values["revision"][rows] <= values["revision"])
        doomed, again, new = due & ~upsert, due & upsert, upsert & ~held
        gone, coming = rows[doomed], new.nonzero()[0]
        self._must_fit(len(coming) - len(gone))
        self._drop(vni, keys[doomed], gone)
        self._upsert(vni, keys, values, rows, coming, again.nonzero()[0])
        return Changes(keys, values, rows, new | again, doomed)

    def restate(self, vni: int, chunk: Routes) -> tuple[Changes, Rows]:
        """Make the routes to the addresses of ``chunk``, which are distinct, as it says.

        Returns what differed, and the rows of all entries. Raises `TableFull`.
        """
        keys, values = keys_of(vni, chunk["ip"]), _values_of(chunk)
        rows = self._index.find(keys)
        new = rows < 0
        coming = new.nonzero()[0]
        self._must_fit(len(coming))
        differ = ~new & (self._values.take(rows) != values)
        self._upsert(vni, keys, values, rows, coming, differ.nonzero()[0])
        return Changes(keys, values, rows, new | differ, np.zeros(len(rows), np.bool_)), rows

    def load(self, vni: int, chunk: Routes) -> tuple[Changes, Rows]:
        """Like `restate`, of addresses to which there is no route here: three times as fast."""
        self._must_fit(len(chunk))
        keys, values = keys_of(vni, chunk["ip"]), _values_of(chunk)
        rows = self._take(len(chunk))
        in_a_row = slice(rows[0], rows[0] + len(rows)) if len(rows) else slice(0)
        where = in_a_row if (np.diff(rows) == 1).all() else rows  # a slice is written faster
        self._put(where, keys, values)
        self._index.add(keys, rows)
        self._count(vni, len(rows))
        every = np.ones(len(rows), np.bool_)
        return Changes(keys, values, rows, every, ~every), rows

    def remove(self, vni: int, rows: Rows) -> Changes:
        """Remove rows of one VPC."""
        keys, values = self._keys.take(rows, axis=0), self._values.take(rows)
        self._drop(vni, keys, rows)
        every = np.ones(len(rows), np.bool_)
        return Changes(keys, values, rows, ~every, every)

    def seed(self, keys: Records, values: Records) -> None:
        """Take over routes that are not here: distinct `KEY` and their `VALUE`.

        Raises `TableFull`.
        """
        self._must_fit(len(keys))
        rows = np.arange(self._unused, self._unused + len(keys))
        self._unused += len(keys)
        self._put(rows, keys_of(keys["vni"], keys["ip"]), values)
        self._index.add(self._keys[rows], rows)
        self._count_all(keys["vni"].astype(np.int64))

    def _must_fit(self, more: int) -> None:
        if len(self) + more > self.capacity:
            raise TableFull(len(self), more, self.capacity)

    def _count(self, vni: int, more: int) -> None:
        """So many more routes of a VPC."""
        self._counts[vni] += more
        self._held += more

    def _count_all(self, vnis: Rows) -> None:
        """One route more for each of ``vnis``."""
        found, counts = np.unique(vnis, return_counts=True)
        self._counts[found] += counts.astype(np.int32)
        self._held += len(vnis)

    def _upsert(
        self, vni: int, keys: Keys, values: Records, rows: Rows, new: Rows, again: Rows
    ) -> None:
        """Take in the routes at ``new`` of these, and at ``again`` those that are held; write their
        places into ``rows``."""
        if len(again):
            rows[again] = self._rewrite(rows[again], values[again])
        if len(new):
            rows[new] = self._insert(vni, keys[new], values[new])

    def _drop(self, vni: int, keys: Keys, rows: Rows) -> None:
        """Remove routes of one VPC that are held in ``rows``."""
        if len(rows):
            self._index.remove(keys, rows)
            self._release(rows)
            self._count(vni, -len(rows))

    def _put(self, rows: Rows | slice, keys: Keys, values: Records) -> None:
        """Write rows that nothing leads to."""
        self._whole_keys[rows] = keys.view(_WHOLE).reshape(-1)
        self._whole_values[rows] = values.view(_WHOLE)

    def _insert(self, vni: int, keys: Keys, values: Records) -> Rows:
        """Routes that are not held; returns their rows."""
        rows = self._take(len(keys))
        self._put(rows, keys, values)
        self._index.add(keys, rows)
        self._count(vni, len(rows))
        return rows

    def _rewrite(self, rows: Rows, values: Records) -> Rows:
        """Have routes that are held in ``rows`` lead elsewhere; returns the rows of them."""
        self._whole_values[rows] = values.view(_WHOLE)
        return rows

    def _release(self, rows: Rows) -> None:
        """Nothing leads to these rows any more."""
        self._keys[rows, 2] = 0  # no VPC has that VNI
        self._free[self._freed : self._freed + len(rows)] = rows
        self._freed += len(rows)

    def _take(self, count: int) -> Rows:
        """Rows that were not in use, those first that were once."""
        reused = min(count, self._freed)
        self._freed -= reused
        rows = self._free[self._freed : self._freed + reused].copy()
        if reused == count:
            return rows
        begin, self._unused = self._unused, self._unused + count - reused
        return np.concatenate((rows, np.arange(begin, self._unused)))


def _values_of(entries: Routes) -> Records:
    values = np.zeros(len(entries), VALUE)
    values.view(_KEPT)[:] = np.asarray(entries, ROUTE).view(_SENT)
    return values


def _records(keys: Keys) -> Records:
    records = np.zeros(len(keys), KEY)
    records["ip"] = np.ascontiguousarray(keys[:, :2]).view(np.uint8)
    records["vni"] = keys[:, 2]
    return records


def latest(delta: Routes, hashes: npt.NDArray[np.unsignedinteger]) -> Routes:
    """One entry per address: that of the highest revision, of equal ones the last.

    ``hashes`` (n,): of the addresses, whatever function they are of.
    """
    in_order = np.sort(hashes)
    if (in_order[1:] != in_order[:-1]).all():
        return delta  # nearly always, and then the order is nobody's concern
    halves = np.ascontiguousarray(delta["ip"]).view(np.uint64)
    order = np.lexsort((delta["revision"], halves[:, 1], halves[:, 0]))
    sorted_halves = halves[order]
    last = np.ones(len(delta), np.bool_)
    last[:-1] = (sorted_halves[1:] != sorted_halves[:-1]).any(axis=1)
    return delta[order[last]]
