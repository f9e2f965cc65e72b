"""One packet through a packet path that runs, step by step, and nothing of it changed.

An object compiled with ACH_TRACE (ach_trace.h) holds the programs that packets run, which here also
tell what they look up. They are loaded a second time: maps that they only read are the live ones,
those that they write are copies. Of large hash tables only the entries that the packet asks for are
copied: it runs once to ask, and again with what was found, until it asks for nothing new.
"""

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from achelous_shared.bpf.dtypes import dtype_of, enum_of
from achelous_shared.bpf.errors import BpfError
from achelous_shared.bpf.kernel import map_info
from achelous_shared.bpf.layout import MapType
from achelous_shared.bpf.maps import Array, BpfMap
from achelous_shared.bpf.object import BpfObject
from achelous_shared.bpf.ringbuf import RingBuffer

MIN_FRAME: Final = 14
MAX_FRAME: Final = 3000
"""Bytes: what a run takes, and what it may add, fits one page of the kernel's."""
_ENTRIES: Final = 64
"""Of a copied hash table: more than one packet asks for."""
_PASSES: Final = 40
"""Each but the last has copied an entry. A new session may look at 32 others for want of room."""
_RING: Final = 4096
_READ: Final = 4096
_NEVER: Final = 0xFF


class Kind(IntEnum):
    """C's enum ach_trace_kind."""

    LOOKUP = 0
    UPDATE = 1
    DELETE = 2
    RULE = 3
    REDIRECT = 4
    PEER = 5
    NEIGH = 6


@dataclass(frozen=True, slots=True)
class Copies:
    """What becomes of the live maps, by name. Those that are not named are empty at first."""

    shared: frozenset[str]
    """The programs only read them."""
    whole: frozenset[str]
    """Arrays, copied before each run."""
    asked: frozenset[str]
    """Hash tables, of which the entries are copied that the packet asks for."""


class Step(NamedTuple):
    """``table``: a map's name, or "" of a redirect, which has a ``device`` (ifindex) instead.

    ``key`` and ``value`` are bytes, cut to what a record holds and filled up with zeros.
    """

    kind: Kind
    table: str
    device: int
    found: bool
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Run:
    """What became of a frame: the program's verdict, the frame as it then is, and how.

    ``counted``: what each counter gained, over all slots and CPUs.
    """

    verdict: int
    frame: bytes
    steps: tuple[Step, ...]
    counted: Mapping[str, Array]


class TracedPath:
    """A second instance of a packet path that runs. Use `load_traced`."""

    def __init__(self, loaded: BpfObject, live: Mapping[str, BpfMap], copies: Copies) -> None:
        self._loaded = loaded
        self._live = live
        self._copies = copies
        self._ring = RingBuffer(loaded.maps["trace_steps"], dtype_of(loaded, "ach_trace_step"))
        self._names = {map_info(one.fd).id: name for name, one in loaded.maps.items()}
        self.btf = loaded.btf
        self.reasons = _reasons(loaded)
        """Name and words of each reason to drop a packet, by number."""

    def run(self, program: str, frame: bytes, ifindex: int, room: Mapping[str, int]) -> Run:
        """Send a frame in through a device of this thread's namespace.

        ``room``: how many entries still fit some of the copied hash tables. Raises BpfError where
        the kernel refuses, as it does a frame longer than MAX_FRAME.
        """
        held: dict[str, dict[bytes, Any]] = {name: {} for name in self._copies.asked}
        asked: set[tuple[str, bytes]] = set()
        for _ in range(_PASSES):
            self._fill(held, room)
            run = self._pass(program, frame, ifindex)
            if not self._fetch(run, held, asked):
                return run
        raise BpfError(errno.ELOOP, f"trace a packet that asks for more than {_PASSES} entries")

    def dtypes(self, table: str) -> tuple[np.dtype[Any], np.dtype[Any]]:
        """Of a table's keys and values."""
        found = self._loaded.maps[table]
        return found.key_dtype, found.value_dtype

    def close(self) -> None:
        """Unload it."""
        self._loaded.close()

    def _pass(self, program: str, frame: bytes, ifindex: int) -> Run:
        before = self._counters()
        result = self._loaded.programs[program].test_run(frame, ifindex=ifindex)
        counted = {name: count - before[name] for name, count in self._counters().items()}
        steps = tuple(map(self._step, self._ring.read(_READ)))
        return Run(result.retval, result.data, steps, counted)

    def _counters(self) -> dict[str, Array]:
        values = self._loaded.maps["counters"].per_cpu_all()
        names = values.dtype.names or ()
        return {name: values[name].astype(np.int64).sum(axis=(0, 1)) for name in names}

    def _step(self, record: Any) -> Step:
        kind, number = Kind(int(record["kind"])), int(record["table"])
        to_device = kind in (Kind.REDIRECT, Kind.PEER, Kind.NEIGH)
        return Step(
            kind,
            "" if to_device else self._names.get(number, ""),
            number if to_device else 0,
            bool(record["found"]),
            record["key"].tobytes(),
            record["value"].tobytes(),
        )

    def _fill(self, held: Mapping[str, Mapping[bytes, Any]], room: Mapping[str, int]) -> None:
        """Make the copies what the live maps are now."""
        for name in self._copies.whole:
            live, copy = self._live[name], self._loaded.maps[name]
            if live.type is MapType.ARRAY:
                copy.mmap()[:] = live.mmap()
            else:
                copy.update_batch(*live.lookup_batch_all())
        for name, entries in held.items():
            copy = self._loaded.maps[name]
            copy.delete_batch(copy.lookup_batch_all()[0])
            for key, value in entries.items():
                copy.update(np.frombuffer(key, copy.key_dtype)[0], value)
            _pad(copy, _ENTRIES - len(entries) - room.get(name, _ENTRIES))

    def _fetch(
        self, run: Run, held: Mapping[str, dict[bytes, Any]], asked: set[tuple[str, bytes]]
    ) -> bool:
        """Take the live entries that the run asked for into ``held``; False if there are none."""
        found = False
        for step in run.steps:
            if step.kind is not Kind.LOOKUP or step.table not in held:
                continue
            live = self._live[step.table]
            key = step.key[: live.key_dtype.itemsize]
            if (step.table, key) in asked:
                continue
            asked.add((step.table, key))
            value = live.lookup(np.frombuffer(key, live.key_dtype)[0])
            if value is not None:
                held[step.table][key] = value
                found = True
        return found


def load_traced(path: Path, live: Mapping[str, BpfMap], copies: Copies) -> TracedPath:
    """The traced object at ``path`` over the maps of the packet path that runs, to be closed.

    Raises BpfError.
    """
    loaded = BpfObject.open(
        path,
        pin_dir=None,
        max_entries={
            name: _size(one)
            for name, one in live.items()
            if name[0] != "." and name not in copies.shared
        },
        share={name: live[name] for name in copies.shared},
    )
    try:
        return TracedPath(loaded, live, copies)
    except BaseException:
        loaded.close()
        raise


def _reasons(loaded: BpfObject) -> tuple[tuple[str, str], ...]:
    words: Any = loaded.maps[".rodata"].lookup(0)
    return tuple(
        (name.removeprefix("ACH_DROP_").lower(), text.tobytes().rstrip(b"\0").decode())
        for name, text in zip(enum_of(loaded, "ach_drop"), words["ach_drop_words"], strict=False)
    )


def _size(live: BpfMap) -> int:
    if live.type is MapType.RINGBUF:
        return _RING
    hashed = live.type in (MapType.HASH, MapType.LRU_HASH)
    return min(_ENTRIES, live.max_entries) if hashed else live.max_entries


def _pad(copy: BpfMap, count: int) -> None:
    """Fill a table up by so many entries that no packet asks for."""
    if count <= 0:
        return
    keys = np.full((count, copy.key_dtype.itemsize), _NEVER, np.uint8)
    keys[:, 0] = np.arange(count)
    copy.update_batch(keys.view(copy.key_dtype)[:, 0], np.zeros(count, copy.value_dtype))
