"""The seam between the agent and the packet path: named tables, views and hooks.

What the agent decides it writes here, and what the packet path saw it reads here; it knows of eBPF
nothing else. `kernel.py` opens the real one.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from achelous_shared.tracing import Tracer

Array = npt.NDArray[Any]


class Table(Protocol):
    """A hash table. Keys and values are records of the layouts that C defines.

    Failures raise OSError (E2BIG: it is full).
    """

    @property
    def key_dtype(self) -> np.dtype[Any]: ...

    @property
    def value_dtype(self) -> np.dtype[Any]: ...

    def lookup(self, key: np.generic | Array | int) -> Any | None:
        """A copy of the value, or None."""

    def update(self, key: np.generic | Array | int, value: np.generic | Array | int) -> None:
        """Create or replace an entry."""

    def delete(self, key: np.generic | Array | int) -> bool:
        """Remove an entry; False if there was none."""

    def update_batch(self, keys: Array, values: Array) -> None:
        """Create or replace entries (n,)."""

    def delete_batch(self, keys: Array) -> int:
        """Remove entries (n,); missing ones are skipped."""

    def lookup_batch_all(self) -> tuple[Array, Array]:
        """All keys (n,) and values (n,)."""

    def scan(self, cursor: bytes | None, count: int) -> tuple[Array, Array, bytes | None]:
        """About ``count`` entries after ``cursor``, and the next cursor; None at the end."""


class Counters(Protocol):
    """Counters of each port slot, one set per CPU."""

    def per_cpu_lookup(self, key: int) -> Array:
        """Those of one slot (cpus,)."""

    def per_cpu_update(self, key: int, values: Array) -> None:
        """Set those of one slot (cpus,)."""

    def per_cpu_all(self) -> Array:
        """Those of all slots (slots, cpus)."""


class Events(Protocol):
    """A queue of events that the packet path fills."""

    @property
    def fd(self) -> int:
        """Readable when there is something to read."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of an event."""

    def read(self, limit: int) -> Array:
        """Up to ``limit`` events (n,), at once."""


class Hooks(Protocol):
    """Where the packet path meets devices. Failures raise OSError."""

    async def attach_guest(self, device: str, ifindex: int) -> None:
        """Send what the guest behind ``device`` sends through the packet path; again: no change."""

    async def attach_underlay(self, device: str, ifindex: int) -> None:
        """Send what ``device`` receives through the packet path; again: no change."""

    async def detach(self, device: str) -> None:
        """Leave ``device`` alone, if it is there still."""

    def attached(self) -> set[str]:
        """Devices that are hooked now, by this agent or by one before it."""


@dataclass(frozen=True, slots=True)
class Dataplane:
    """All of it. The views are live memory of the packet path; see `ach_layout.h` for each."""

    config: Array
    ports: Array
    leases: Array
    fc: Array
    gateways: Array
    acl_words: Array
    session_counts: Array
    session_hands: Array
    port_by_ifindex: Table
    endpoints: Table
    vnis: Table
    acl_sets: Table
    fc_index: Table
    sessions: Table
    vteps: Table
    counters: Counters
    learn: Events
    samples: Events
    hooks: Hooks
    drop_reasons: tuple[str, ...]
    """Names by number."""
    max_sessions: int
    tracer: Tracer | None = None
    """Runs single frames beside the traffic, where that is possible."""


def vni_ip(dtype: np.dtype[Any], vni: int, ip: bytes) -> Array:
    """A key of one destination: C's ``ach_vni_ip``."""
    key = np.zeros((), dtype)
    key["vni"] = vni
    key["ip"] = np.frombuffer(ip, np.uint8)
    return key
