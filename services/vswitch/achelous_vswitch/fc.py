"""The forwarding cache: destinations on other hosts, as the packet path holds them.

Its memory is the packet path's, and the slot of an entry never changes what it says: another route
gets another slot, then the index names it, and then the old slot's generation moves on, with which
every session that named it asks again. What only the agent needs, the time of the last
confirmation, is a column here.
"""

import time
from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from achelous_shared.rsp_hash import destination_hash, destination_hashes
from achelous_vswitch.dataplane import Array, Table, vni_ip
from achelous_vswitch.fc_hashes import HashChains, Slots
from achelous_vswitch.slots import SlotPool
from achelous_vswitch.views import Views

UNUSED: Final = np.iinfo(np.int64).max
_SPARE: Final = 16
"""One sixteenth of the slots is kept free, by evicting what was not used for longest."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a destination is. ``vtep``: 4 bytes; ``mac``: of the destination vNIC."""

    vtep: bytes
    mac: bytes
    mtu: int
    revision: int
    identity: int = 0
    """Of the destination's security groups, 0: none that matters."""
    as_of: int = 0
    """Revision of the VPC that the gateway which said so had reached at least; 0: unknown."""


class ForwardingCache:
    """Entries by slot. All times are nanoseconds of CLOCK_MONOTONIC, the packet path's clock."""

    def __init__(self, entries: Array, index: Table, *, rest_s: float = 1.0) -> None:
        """Adopt the entries that are there: kept, and due for a check at once.

        What the index has beyond ``entries`` is not the cache's (see `programmed`).
        """
        self.entries = entries
        self._index = index
        self._checked = np.full(len(entries), UNUSED, np.int64)
        self._hashes = HashChains(len(entries))
        self._owner = np.zeros(len(entries), np.int32)
        self._owned: Counter[int] = Counter()
        self.views = Views()
        self.evicted = 0
        """Entries that had to go because the cache was full."""
        self._adopt()
        free = np.flatnonzero(self._checked == UNUSED)
        self._pool = SlotPool(free[free != 0].tolist(), rest_s=rest_s)

    def __len__(self) -> int:
        return len(self.entries) - 1 - len(self._pool)

    def used(self) -> Slots:
        """Slots in use, in order."""
        return np.flatnonzero(self._checked != UNUSED)

    def unconfirmed(self, since_ns: int) -> Slots:
        """Slots of entries that no gateway confirmed after ``since_ns``."""
        return np.flatnonzero(self._checked <= since_ns)

    def idle(self, since_ns: int) -> Slots:
        """Slots of entries that no packet used after ``since_ns``."""
        used = self.used()
        return used[self.entries["last_used_ns"][used] <= np.uint64(max(since_ns, 0))]

    def checked_ns(self, slots: Slots) -> npt.NDArray[np.int64]:
        """When entries were last confirmed, alone or with all of their VPC; 0: not yet."""
        views = [self.views.get(vni) for vni in self.entries["vni"][slots].tolist()]
        together = [view.confirmed_ns if view else 0 for view in views]
        return np.maximum(self._checked[slots], np.array(together, np.int64))

    def of_vpc(self, vni: int) -> Slots:
        """Slots of one VPC's entries, in order."""
        used = self.used()
        ours: Slots = used[self.entries["vni"][used] == vni]
        return ours

    def newer(self, vni: int, revision: int) -> Slots:
        """Slots of one VPC's entries whose routes are of a higher revision, in order."""
        ours = self.of_vpc(vni)
        return ours[self.entries["revision"][ours] > revision]

    def changed(self, vni: int, hashes: npt.NDArray[np.uint32]) -> tuple[Slots, Slots]:
        """Slots whose destinations may be among those of ``hashes`` (n,), with their places."""
        slots, places = self._hashes.find(hashes)
        ours = self.entries["vni"][slots] == vni
        return slots[ours], places[ours]

    def slot_of(self, vni: int, ip: bytes) -> int | None:
        """The slot of a destination, or None; None too of one that is programmed ahead."""
        slot = self._index.lookup(self._key(vni, ip))
        return None if slot is None or slot >= len(self.entries) else int(slot)

    def owned_by(self, port: int) -> int:
        """Entries that were learned for the vNIC in this slot of ports."""
        return self._owned[port]

    def put(self, vni: int, ip: bytes, route: Route, asked_ns: int, port: int = 0) -> bool:
        """Make this the route of a destination, as a gateway knew it no earlier than ``asked_ns``.

        An answer older than what is held, by its revision, changes nothing. False: no slot is free,
        and the destination stays with the gateways for now. ``port``: slot of the vNIC that it is
        learned for; one that is held stays with its first. One that is programmed ahead stays so.
        """
        found = self._index.lookup(self._key(vni, ip))
        if found is not None and found >= len(self.entries):
            return True
        old = None if found is None else int(found)
        if old is not None:
            if route.revision < self.entries["revision"][old]:
                return True
            if self._holds(old, route):
                self.confirm(np.array([old]), np.array([route.revision], np.uint64), asked_ns)
                return True
        slot = self._take_slot()
        if slot is None:
            return False
        self._write(slot, vni, ip, route)
        self._hashes.add(slot, destination_hash(vni, ip))
        self.views.enter(vni, route.as_of)
        self._index.update(self._key(vni, ip), slot)
        self._checked[slot] = asked_ns
        self._owner[slot] = port if old is None else self._owner[old]
        self._owned[int(self._owner[slot])] += 1
        if old is not None:
            self._retire(old)
        return True

    def confirm(self, slots: Slots, revisions: Array, asked_ns: int) -> None:
        """Note that a gateway still knew these routes, by these ``revisions`` (n,), when asked."""
        self._checked[slots] = np.maximum(self._checked[slots], asked_ns)
        self.entries["revision"][slots] = np.maximum(self.entries["revision"][slots], revisions)

    def remove(self, slots: Slots) -> None:
        """Forget entries: their destinations are the gateways' again."""
        if not len(slots):
            return
        keys = np.zeros(len(slots), self._index.key_dtype)
        keys["vni"] = self.entries["vni"][slots]
        keys["ip"] = self.entries["ip"][slots]
        self._index.delete_batch(keys)
        for slot in slots.tolist():
            self._retire(slot)

    def give_way(self, vni: int, ips: Array) -> None:
        """Forget destinations (n, 16) that are about to be programmed ahead.

        Another one of equal hash goes with them, and is learned again.
        """
        if self.views.get(vni) is not None:
            slots, _ = self.changed(vni, destination_hashes(vni, ips))
            self.remove(np.unique(slots))

    def forget(self, vni: int, ip: bytes) -> None:
        """Forget one destination, if it is known."""
        slot = self.slot_of(vni, ip)
        if slot is not None:
            self.remove(np.array([slot]))

    def make_room(self) -> None:
        """Evict the least recently used entries until a part of the slots is spare again."""
        spare = max(1, (len(self.entries) - 1) // _SPARE)
        missing = min(spare - len(self._pool), len(self))
        if missing <= 0:
            return
        used = self.used()
        oldest = np.argpartition(self.entries["last_used_ns"][used], missing - 1)[:missing]
        self.remove(used[oldest])
        self.evicted += missing

    def _take_slot(self) -> int | None:
        return self._pool.take(time.monotonic())

    def _holds(self, slot: int, route: Route) -> bool:
        entry = self.entries[slot]
        held = (entry["vtep"].tobytes(), entry["mac"].tobytes())
        numbers = (int(entry["mtu"]), int(entry["identity"]))
        return held == (route.vtep, route.mac) and numbers == (route.mtu, route.identity)

    def _write(self, slot: int, vni: int, ip: bytes, route: Route) -> None:
        entry = self.entries[slot]
        entry["vni"] = vni
        entry["ip"] = np.frombuffer(ip, np.uint8)
        entry["vtep"] = int.from_bytes(route.vtep)
        entry["mac"] = np.frombuffer(route.mac, np.uint8)
        entry["mtu"] = route.mtu
        entry["identity"] = route.identity
        entry["revision"] = route.revision
        entry["last_used_ns"] = time.monotonic_ns()
        entry["generation"] = (int(entry["generation"]) + 1) % (1 << 32)  # odd: in use

    def _retire(self, slot: int) -> None:
        entry = self.entries[slot]
        self._hashes.remove(slot)
        self._disown(int(self._owner[slot]))
        self.views.leave(int(entry["vni"]))
        entry["generation"] = (int(entry["generation"]) + 1) % (1 << 32)  # even: free
        self._checked[slot] = UNUSED
        self._pool.give_back(slot, time.monotonic())

    def _disown(self, port: int) -> None:
        self._owned[port] -= 1
        if self._owned[port] <= 0:
            del self._owned[port]

    def _key(self, vni: int, ip: bytes) -> Array:
        return vni_ip(self._index.key_dtype, vni, ip)

    def _adopt(self) -> None:
        """Keep what index and entry agree upon; an agent may have died between the two."""
        keys, found = self._index.lookup_batch_all()
        ours = found < len(self.entries)
        keys, slots = keys[ours], found[ours].astype(np.intp)
        held = self.entries[slots]
        sound = (held["generation"] % 2 == 1) & (held["vni"] == keys["vni"])
        sound &= (held["ip"] == keys["ip"]).all(axis=-1)
        if not sound.all():
            self._index.delete_batch(keys[~sound])
        self._checked[slots[sound]] = 0
        kept = slots[sound]
        hashes = destination_hashes(self.entries["vni"][kept], self.entries["ip"][kept])
        for slot, value in zip(kept.tolist(), hashes.tolist(), strict=True):
            self._hashes.add(slot, value)
            self.views.enter(int(self.entries["vni"][slot]), 0)
        strays = np.flatnonzero((self.entries["generation"] % 2 == 1) & (self._checked == UNUSED))
        self.entries["generation"][strays] += np.uint32(1)
