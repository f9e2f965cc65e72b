"""Slots of the forwarding cache by the hash of their destination: chains in packed columns.

The work of a search follows the hashes that are looked for, not the entries that are held.
"""

import numpy as np
import numpy.typing as npt

from achelous_shared.rsp_hash import Hashes

Slots = npt.NDArray[np.intp]


class HashChains:
    """Which slots hold a destination of a given hash. Slot 0 is none."""

    def __init__(self, slots: int) -> None:
        bits = max(4, slots.bit_length())
        self._mask = (1 << bits) - 1
        self._first = np.zeros(1 << bits, np.int32)
        self._next = np.zeros(slots, np.int32)
        self._hashes: Hashes = np.zeros(slots, np.uint32)

    def add(self, slot: int, value: int) -> None:
        """Enter a slot that is not here with the hash of its destination."""
        self._hashes[slot] = value
        bucket = value & self._mask
        self._next[slot] = self._first[bucket]
        self._first[bucket] = slot

    def remove(self, slot: int) -> None:
        """Take out a slot that is here."""
        bucket = int(self._hashes[slot]) & self._mask
        at = int(self._first[bucket])
        if at == slot:
            self._first[bucket] = self._next[slot]
            return
        while (following := int(self._next[at])) != slot:
            at = following
        self._next[at] = self._next[slot]

    def find(self, hashes: Hashes) -> tuple[Slots, npt.NDArray[np.intp]]:
        """Slots of equal hash (m,), and for each its place in ``hashes`` (m,)."""
        at = self._first[hashes & self._mask].astype(np.intp)
        places = np.flatnonzero(at)
        at = at[places]
        found, found_places = [at[:0]], [places[:0]]
        while at.size:
            equal = self._hashes[at] == hashes[places]
            found.append(at[equal])
            found_places.append(places[equal])
            at = self._next[at].astype(np.intp)
            going = at != 0
            at, places = at[going], places[going]
        return np.concatenate(found), np.concatenate(found_places)
