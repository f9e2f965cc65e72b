"""A packet path of nothing but memory, behind the same seam and with the layouts of the real one.

For tests of the agent's logic and for simulated hosts. No packet passes it: who uses it puts learn
events in, and reads from the tables what the real programs would do.
"""

import os
from typing import Any, Final

import numpy as np

from achelous_shared.bpf import dtype_of, enum_of, object_path
from achelous_vswitch.dataplane import Array, Dataplane

CPUS: Final = 2
U32: Final = np.dtype("<u4")


def layout(struct: str) -> np.dtype[Any]:
    """The dtype of a C struct."""
    return dtype_of(object_path("vswitch"), struct)


class MemoryTable:
    """A hash table in a dict, of limited size as the kernel's."""

    def __init__(self, key: np.dtype[Any], value: np.dtype[Any], limit: int = 1 << 20) -> None:
        self.key_dtype = key
        self.value_dtype = value
        self.limit = limit
        self.entries: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def lookup(self, key: Any) -> Any | None:
        value = self.entries.get(self._bytes(key, self.key_dtype))
        return None if value is None else np.frombuffer(value, self.value_dtype)[0]

    def update(self, key: Any, value: Any) -> None:
        packed = self._bytes(key, self.key_dtype)
        if packed not in self.entries and len(self.entries) >= self.limit:
            raise OSError(7, "the table is full")
        self.entries[packed] = self._bytes(value, self.value_dtype)

    def delete(self, key: Any) -> bool:
        return self.entries.pop(self._bytes(key, self.key_dtype), None) is not None

    def update_batch(self, keys: Array, values: Array) -> None:
        packed, contents = _split(keys, self.key_dtype), _split(values, self.value_dtype)
        room = self.limit - len(self.entries)
        if len(packed) > room and len(set(packed) - self.entries.keys()) > room:
            raise OSError(7, "the table is full")
        self.entries.update(zip(packed, contents, strict=True))

    def delete_batch(self, keys: Array) -> int:
        before = len(self.entries)
        for packed in _split(keys, self.key_dtype):
            self.entries.pop(packed, None)
        return before - len(self.entries)

    def lookup_batch_all(self) -> tuple[Array, Array]:
        keys = np.frombuffer(b"".join(self.entries), self.key_dtype)
        return keys, np.frombuffer(b"".join(self.entries.values()), self.value_dtype)

    def scan(self, cursor: bytes | None, count: int) -> tuple[Array, Array, bytes | None]:  # noqa: ARG002 - the seam's
        """All of it at once."""
        return *self.lookup_batch_all(), None

    @staticmethod
    def _bytes(value: Any, dtype: np.dtype[Any]) -> bytes:
        return np.asarray(value, dtype).tobytes()


def _split(records: Array, dtype: np.dtype[Any]) -> list[bytes]:
    """The bytes of each record."""
    whole, size = np.asarray(records, dtype).tobytes(), dtype.itemsize
    return [whole[at : at + size] for at in range(0, len(whole), size)]


class MemoryCounters:
    """Counters of port slots, per CPU."""

    def __init__(self, slots: int) -> None:
        self.values: Array = np.zeros((slots, CPUS), layout("ach_port_counters"))

    def per_cpu_lookup(self, key: int) -> Array:
        found: Array = self.values[key].copy()
        return found

    def per_cpu_update(self, key: int, values: Array) -> None:
        self.values[key] = values

    def per_cpu_all(self) -> Array:
        return self.values.copy()


class MemoryEvents:
    """A queue of events, with a descriptor that is readable while there are any."""

    def __init__(self, struct: str) -> None:
        self.dtype = layout(struct)
        self.queue: Array = np.zeros(0, self.dtype)
        self._fd = -1

    @property
    def fd(self) -> int:
        """Opened when it is first asked for: most tests read without waiting."""
        if self._fd < 0:
            self._fd = os.eventfd(len(self.queue), os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        return self._fd

    def push(self, events: Array) -> None:
        """Append events (n,)."""
        self.queue = np.concatenate([self.queue, events])
        if len(events) and self._fd >= 0:
            os.eventfd_write(self._fd, 1)

    def read(self, limit: int) -> Array:
        taken, self.queue = self.queue[:limit], self.queue[limit:]
        if not len(self.queue) and len(taken) and self._fd >= 0:
            os.eventfd_read(self._fd)
        return taken

    def close(self) -> None:
        """Let go of the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class MemoryHooks:
    """Remembers which devices are hooked."""

    def __init__(self) -> None:
        self.devices: dict[str, int] = {}

    async def attach_guest(self, device: str, ifindex: int) -> None:
        self.devices[device] = ifindex

    async def attach_underlay(self, device: str, ifindex: int) -> None:
        self.devices[device] = ifindex

    async def detach(self, device: str) -> None:
        self.devices.pop(device, None)

    def attached(self) -> set[str]:
        return set(self.devices)


def memory_dataplane(
    *, ports: int = 8, fc: int = 16, rule_sets: int = 64, rule_words: int = 4096
) -> Dataplane:
    """A packet path with so many slots that can be used."""
    vni_ip = layout("ach_vni_ip")
    return Dataplane(
        config=np.zeros(1, layout("ach_vswitch_config")),
        ports=np.zeros(ports + 1, layout("ach_port")),
        leases=np.zeros(ports + 1, layout("ach_lease")),
        fc=np.zeros(fc + 1, layout("ach_fc_entry")),
        gateways=np.zeros(64 * 1024, ">u4"),
        session_counts=np.zeros(ports + 1, layout("ach_session_counts")),
        session_hands=np.zeros(1, layout("ach_session_hands")),
        port_by_ifindex=MemoryTable(U32, U32),
        endpoints=MemoryTable(vni_ip, U32),
        vnis=MemoryTable(U32, U32),
        acl_sets=MemoryTable(U32, layout("ach_ruleset"), rule_sets),
        acl_words=np.zeros(rule_words, np.uint64),
        fc_index=MemoryTable(vni_ip, U32, fc + 1),
        sessions=MemoryTable(layout("ach_session_key"), layout("ach_session")),
        vteps=MemoryTable(np.dtype(">u4"), np.dtype("u1")),
        counters=MemoryCounters(ports + 1),
        learn=MemoryEvents("ach_learn_event"),
        samples=MemoryEvents("ach_drop_sample"),
        hooks=MemoryHooks(),
        max_sessions=1 << 20,
        drop_reasons=tuple(
            name.removeprefix("ACH_DROP_").lower()
            for name in enum_of(object_path("vswitch"), "ach_drop")
        ),
    )
