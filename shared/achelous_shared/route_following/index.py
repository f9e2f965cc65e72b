"""Where the row of a (VNI, address) is: a hash of fixed size, vectorised over batches of keys.

Buckets of eight slots, each slot a tag of the key's hash and a row number. A key lives in its home
bucket or, where that was full, in the first one after it that had room; each bucket counts the
keys that passed it by. So a search ends at a bucket that nobody passed, a removal leaves no
tombstone, and the index never has to be rebuilt. Its pages become resident as they are used.
"""

import secrets
from typing import Final

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
"""(n, 3): the two halves of the address as they lie in memory, and the VNI."""

Rows = npt.NDArray[np.int64]
"""(n,): row numbers, -1 where there is none."""

Hashes = npt.NDArray[np.uint64]

_SLOTS: Final = 8
"""Slots of a bucket: one cache line."""
_MIX: Final = np.uint64(0xD6E8FEB86659FD93)
_HALF: Final = np.uint64(32)
_ROW: Final = np.uint64(1 << 32)  # words below it are row numbers alone: the tags were equal
_ONE: Final = np.uint64(1)
_NO_KEY: Final = np.uint64(2**64 - 1)  # no VNI is that large


def keys_of(vnis: npt.ArrayLike, ips: npt.NDArray[np.uint8]) -> Keys:
    """Keys of ``vnis`` (n,) or one VNI for all, and ``ips`` (n, 16)."""
    keys = np.empty((len(ips), 3), np.uint64)
    keys[:, :2] = np.ascontiguousarray(ips).view(np.uint64)
    keys[:, 2] = vnis
    return keys


class KeyIndex:
    """Finds, adds and removes batches of keys. The caller owns ``keys``, the key of each row.

    The first and the last row stay unused: what is no row number is clipped to one of them, and
    their keys equal none.
    """

    def __init__(self, keys: Keys) -> None:
        keys[[0, -1]] = _NO_KEY
        self._keys = keys
        bits = max(4, (2 * len(keys) // _SLOTS).bit_length())  # at most half full
        self._mask = (1 << bits) - 1
        self._shift = np.uint64(64 - bits)
        self._slots = np.zeros((1 << bits, _SLOTS), np.uint64)
        self._passed = np.zeros(1 << bits, np.int32)
        # Random, so that nobody can choose addresses that meet in one bucket.
        self._factors = np.array([secrets.randbits(64) | 1 for _ in range(3)], np.uint64)

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
        found = equal.all(axis=1)
        rows[~found] = -1
        unsettled = ~found & ((words < _ROW) | (self._passed[buckets] > 0))
        if unsettled.any():
            self._search(keys, buckets, tags, np.flatnonzero(unsettled), rows)
        return rows

    def add(self, keys: Keys, rows: Rows) -> None:
        """Enter keys that are distinct and not there, with ``rows`` whose keys are written."""
        buckets, words = self._places(keys, rows)
        pending, slots = np.arange(len(rows)), self._slots.reshape(-1)
        while pending.size:
            here = buckets[pending]
            free = self._slots.take(here, axis=0) == 0
            first = free.argmax(axis=1)
            room = free[np.arange(len(free)), first]
            full = pending[~room]
            np.add.at(self._passed, buckets[full], 1)
            buckets[full] = (buckets[full] + 1) & self._mask
            wanted, at = pending[room], (here * _SLOTS + first)[room]
            # Where several keys of the batch want one slot the last one has it, the others go on.
            slots[at] = words[wanted]
            pending = np.concatenate((full, wanted[slots.take(at) != words[wanted]]))

    def remove(self, keys: Keys, rows: Rows) -> None:
        """Take out keys that are there in ``rows``."""
        buckets, words = self._places(keys, rows)
        pending = np.arange(len(rows))
        while pending.size:
            same = self._slots[buckets[pending]] == words[pending, None]
            here = same.any(axis=1)
            self._slots[buckets[pending[here]], same[here].argmax(axis=1)] = 0
            pending = pending[~here]
            np.subtract.at(self._passed, buckets[pending], 1)
            buckets[pending] = (buckets[pending] + 1) & self._mask

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
        """Search slot by slot and on from bucket to bucket: keys of equal tag, keys that passed."""
        buckets = buckets[pending]
        while pending.size:
            words = self._slots[buckets] ^ tags[pending, None]
            for slot in range(_SLOTS):
                candidates = (words[:, slot] - _ONE).view(np.int64)
                found = (self._keys.take(candidates, axis=0, mode="clip") == keys[pending]).all(1)
                rows[pending[found]] = candidates[found]
            onward = (rows[pending] < 0) & (self._passed[buckets] > 0)
            pending, buckets = pending[onward], (buckets[onward] + 1) & self._mask
