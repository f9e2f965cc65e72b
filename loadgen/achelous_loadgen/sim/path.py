"""What the packet path would do with a packet of a guest, as far as learning is concerned.

The rules of `vswitch.bpf.c`: a vNIC of this host, else the forwarding cache, else a relay by a
gateway and, from the packet on that makes a destination worth it, a learn event: at most one for
each destination in an interval, and so many for each vNIC in 100 ms. Bytes are not counted, and
pauses not looked for.
"""

import time
from collections import Counter
from typing import Final, cast

import numpy as np

from achelous_vswitch.dataplane import Array, Dataplane, vni_ip
from achelous_vswitch.memory import MemoryEvents

_WINDOW_NS: Final = 100_000_000
_SEEN_MAX: Final = 65_536


class GuestPath:
    """Packets of the guests of one host."""

    def __init__(self, dataplane: Dataplane) -> None:
        self._dataplane = dataplane
        self._events = cast(MemoryEvents, dataplane.learn)
        self._seen: dict[bytes, tuple[int, int]] = {}
        """Packets relayed to a destination, and when the last event was."""
        self._window = 0
        self._of_port: Counter[int] = Counter()
        self.direct = 0
        self.relayed = 0

    def slot_of(self, vni: int, ip: bytes) -> int:
        """The FC's slot of a destination, 0 if it is not known."""
        slot = self._dataplane.fc_index.lookup(self._key(vni, ip))
        return 0 if slot is None else int(slot)

    def vtep_of(self, vni: int, ip: bytes) -> int | None:
        """Where the FC says that a destination is, or None."""
        slot = self.slot_of(vni, ip)
        return int(self._dataplane.fc["vtep"][slot]) if slot else None

    def has_port(self, vni: int, ip: bytes) -> bool:
        """Whether a vNIC with that address runs here."""
        return self._dataplane.endpoints.lookup(self._key(vni, ip)) is not None

    def send(self, vni: int, ip: bytes, *, port: int = 1) -> bool:
        """One packet of the vNIC in slot ``port``; True if it needs no gateway."""
        now = time.monotonic_ns()
        slot = self.slot_of(vni, ip)
        if slot:
            self._dataplane.fc["last_used_ns"][slot] = now
            self.direct += 1
            return True
        self.relayed += 1
        if self._worth_an_event(self._key(vni, ip).tobytes(), port, now):
            event = np.zeros(1, self._events.dtype)
            event["vni"], event["port"], event["at_ns"] = vni, port, now
            event["ip"] = np.frombuffer(ip, np.uint8)
            self._events.push(event)
        return False

    def _worth_an_event(self, key: bytes, port: int, now: int) -> bool:
        config = self._dataplane.config[0]
        if len(self._seen) >= _SEEN_MAX:
            self._seen.clear()  # as an LRU map would let go of some
        packets, last = self._seen.get(key, (0, -_WINDOW_NS))
        packets += 1
        self._seen[key] = packets, last
        if packets < int(config["learn_packets"]) or now - last < int(config["learn_interval_ns"]):
            return False
        window = now // _WINDOW_NS
        if window != self._window:
            self._window, self._of_port = window, Counter()
        if self._of_port[port] >= int(config["learn_per_window"]):
            return False
        self._of_port[port] += 1
        self._seen[key] = packets, now
        return True

    def _key(self, vni: int, ip: bytes) -> Array:
        return vni_ip(self._dataplane.fc_index.key_dtype, vni, ip)
