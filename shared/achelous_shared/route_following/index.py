"""Where the row of a (VNI, address) is: a hash of fixed size, vectorised over batches of keys.

Buckets of eight slots, each slot a tag of the key's hash and a row number. A key lives in its home
bucket or, where that was full, in the first one after it that had room; each bucket counts the
keys that passed it by. So a search ends at a bucket that nobody passed, a removal leaves no
tombstone, and the index never has to be rebuilt. Its pages become resident as they are used.

Others may read the memory while it is written, as the gateway's relay does (routes.h): a slot is
written in one store, when all that it leads to is there; a key never moves; a bucket counts a key
as long as that key may lie beyond it.
"""

import secrets
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
"""(n, 3): the two halves of the address as they lie in memory, and the VNI."""

Rows = npt.NDArray[np.int64]
"""(n,): row numbers, -1 where there is none."""

Hashes = npt.NDArray[np.uint64]

SLOTS: Final = 8
"""Slots of a bucket: one cache line."""
FARTHEST: Final = 32
"""Buckets from its home that a key lies at most, for those who can not search without end: as at
most half of the slots are in use, fewer than one table in 10**12 has a key that lies farther."""
_MIX: Final = np.uint64(0xD6E8FEB86659FD93)
_HALF: Final = np.uint64(32)
_ROW: Final = np.uint64(1 << 32)  # words below it are row numbers alone: the tags were equal
_ROWS: Final = np.uint64(2**32 - 1)
_ONE: Final = np.uint64(1)
_NO_KEY: Final = np.uint64(2**64 - 1)  # no VNI is that large


def keys_of(vnis: npt.ArrayLike, ips: npt.NDArray[np.uint8]) -> Keys:
    """Keys of ``vnis`` (n,) or one VNI for all, and ``ips`` (n, 16)."""
    keys = np.empty((len(ips), 3), np.uint64)
    keys[:, :2] = ips.view(np.uint64)
    keys[:, 2] = vnis
    return keys


@dataclass(frozen=True, slots=True)
class Memory:
    """Where a table of routes lies: ``keys`` and ``values`` of n rows, and the index of them."""

    keys: Keys
    values: npt.NDArray[np.void]
    """(n,) of the caller's fields."""
    slots: npt.NDArray[np.uint64]
    """(buckets, SLOTS): 0 where free, else a tag of 32 bits and a row number + 1."""
    passed: npt.NDArray[np.int64]
    """(buckets,): keys of this home or one before that lie beyond."""
    factors: Hashes
    """(3,) odd ones, by which keys are hashed. Random, so that nobody can choose addresses that
    meet in one bucket."""

    @classmethod
    def private(cls, rows: int, dtype: np.dtype[Any]) -> Self:
        """Of this process alone, empty."""
        buckets = buckets_for(rows)
        return cls(
            np.zeros((rows, 3), np.uint64),
            np.zeros(rows, dtype),
            np.zeros((buckets, SLOTS), np.uint64),
            np.zeros(buckets, np.int64),
            random_factors(),
        )


def buckets_for(rows: int) -> int:
    """How many buckets so many rows need: a power of 2, so many that at most half are full."""
    return 1 << max(4, (2 * rows // SLOTS).bit_length())


def random_factors() -> Hashes:
    """See `Memory.factors`."""
    return np.array([secrets.randbits(64) | 1 for _ in range(3)], np.uint64)


class KeyIndex:
    """Finds, adds and removes batches of keys. The caller writes the key of each row.

    The first and the last row stay unused: what is no row number is clipped to one of them, and
    their keys equal none.
    """

    def __init__(self, memory: Memory) -> None:
        memory.keys[[0, -1]] = _NO_KEY
        self._keys = memory.keys
        self._slots = memory.slots
        self._passed = memory.passed
        self._factors = memory.factors
        self._mask = len(memory.slots) - 1
        self._shift = np.uint64(64 - self._mask.bit_length())

    def find(self, keys: Keys) -> Rows:
        """The row of each key, -1 where it is not there."""
        hashes = self._hash(keys)
        buckets = (hashes >> self._shift).view(np.int64)
        tags = (hashes << _HALF) | _ROW
        # One pass over all settles nearly every key: the smallest word of equal tag, if any.
        words = np.minimum.reduce(self._slots.take(buckets, axis=0) ^ tags[:, None], axis=1)
        rows: Rows = (words - _ONE).view(np.int64)
        equal = self._keys.take(rows, axis=0, mode="clip") == keys
        if equal.all():
            return rows
        missing = (~equal.all(axis=1)).nonzero()[0]
        rows[missing] = -1
        onward = (words[missing] < _ROW) | (self._passed.take(buckets[missing]) > 0)
        if onward.any():
            self._search(keys, buckets, tags, missing[onward], rows)
        return rows

    def add(self, keys: Keys, rows: Rows) -> None:
        """Enter keys that are distinct and not there, with ``rows`` whose keys are written."""
        buckets, words = self._places(keys, rows)
        slots = self._slots.reshape(-1)
        while words.size:
            free = self._slots.take(buckets, axis=0) == 0
            at = buckets * SLOTS + free.argmax(axis=1)
            full = slots.take(at) != 0
            if full.any():
                np.add.at(self._passed, buckets[full], 1)
                slots[at[~full]] = words[~full]
            else:
                slots[at] = words
            # Where several keys of the batch want one slot the last one has it, the others go on.
            left = slots.take(at) != words
            if not left.any():
                return
            buckets, words = ((buckets + full) & self._mask)[left], words[left]

    def replace(self, keys: Keys, rows: Rows, others: Rows) -> None:
        """Have keys that are there in ``rows`` lead to ``others``, whose keys are written."""
        buckets, words = self._places(keys, rows)
        at = self._find_words(buckets, words)
        self._slots.reshape(-1)[at] = words + (others - rows).view(np.uint64)

    def remove(self, keys: Keys, rows: Rows) -> None:
        """Take out keys that are there in ``rows``."""
        buckets, words = self._places(keys, rows)
        at = self._find_words(buckets, words)
        self._slots.reshape(-1)[at] = 0
        self._count_passed(buckets, at // SLOTS, -1)

    def adopt(self) -> Rows:
        """Take over memory that another process left in the middle of whatever it did.

        Drops what no search would find, counts anew which buckets were passed, and returns the rows
        that are in use.
        """
        slots = self._slots.reshape(-1)
        at = np.flatnonzero(slots)
        rows = (slots[at] & _ROWS).view(np.int64) - 1
        sound = (rows > 0) & (rows < len(self._keys) - 1)
        rows[~sound] = 0
        buckets, words = self._places(self._keys.take(rows, axis=0), rows)
        sound &= (words == slots[at]) & ((at // SLOTS - buckets) & self._mask <= FARTHEST)
        slots[at[~sound]] = 0
        homes, ends, rows = buckets[sound], at[sound] // SLOTS, rows[sound]
        before = self._passed.copy()
        self._count_passed(homes, ends, 1)  # too high meanwhile: searches go farther
        self._passed -= before
        return rows

    def _find_words(self, buckets: Rows, words: Hashes) -> Rows:
        """Positions among all slots of words that lie in these buckets or after them."""
        slots = self._slots.reshape(-1)
        at = self._slot_of(buckets, words)
        left = (slots.take(at) != words).nonzero()[0]
        buckets, words = buckets[left], words[left]
        while left.size:
            buckets = (buckets + 1) & self._mask
            at[left] = found = self._slot_of(buckets, words)
            astray = slots.take(found) != words
            left, buckets, words = left[astray], buckets[astray], words[astray]
        return at

    def _slot_of(self, buckets: Rows, words: Hashes) -> Rows:
        """Positions of words that lie in these buckets; of others any position there."""
        same = self._slots.take(buckets, axis=0) == words[:, None]
        at: Rows = buckets * SLOTS + same.argmax(axis=1)
        return at

    def _count_passed(self, homes: Rows, ends: Rows, more: int) -> None:
        """Count keys in each bucket from their home up to, but without, the one they lie in."""
        far = (homes != ends).nonzero()[0]
        while far.size:
            homes, ends = homes[far], ends[far]
            np.add.at(self._passed, homes, more)
            homes = (homes + 1) & self._mask
            far = (homes != ends).nonzero()[0]

    def _hash(self, keys: Keys) -> Hashes:
        hashes: Hashes = keys @ self._factors
        hashes ^= hashes >> _HALF
        hashes *= _MIX
        return hashes

    def _places(self, keys: Keys, rows: Rows) -> tuple[npt.NDArray[np.int64], Hashes]:
        """Home buckets, and the words that stand for the rows."""
        hashes = self._hash(keys)
        buckets = (hashes >> self._shift).view(np.int64)
        return buckets, ((hashes << _HALF) | _ROW) + rows.view(np.uint64) + _ONE

    def _search(
        self, keys: Keys, buckets: Rows, tags: Hashes, pending: npt.NDArray[np.int64], rows: Rows
    ) -> None:
        """Search all slots of equal tag, and on from bucket to bucket where keys passed."""
        buckets = buckets[pending]
        while pending.size:
            words = self._slots.take(buckets, axis=0) ^ tags[pending, None]
            of, slot = (words < _ROW).nonzero()
            if of.size:
                candidates = (words[of, slot] - _ONE).view(np.int64)
                same = self._keys.take(candidates, axis=0, mode="clip") == keys[pending[of]]
                found = same.all(axis=1).nonzero()[0]
                rows[pending[of[found]]] = candidates[found]
            onward = ((rows[pending] < 0) & (self._passed.take(buckets) > 0)).nonzero()[0]
            pending, buckets = pending[onward], (buckets[onward] + 1) & self._mask
