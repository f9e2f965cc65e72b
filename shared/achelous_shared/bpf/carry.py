"""A pinned map of another layout: its entries go over into the new map, field by field.

Which fields a pinned map has, its own BTF tells, as the object's does for the new one. Fields go by
name; new ones are 0, and what the new layout has no field for is dropped. Packets use the old
map until their programs are replaced: copy, replace the programs, copy what came meanwhile,
then let the pin name the new map.
"""

import ctypes
import os
from ctypes import c_uint32, c_uint64
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from achelous_shared.bpf.btf import Btf
from achelous_shared.bpf.dtypes import to_dtype
from achelous_shared.bpf.errors import MapLayoutChanged, check
from achelous_shared.bpf.kernel import map_info
from achelous_shared.bpf.layout import MapLayout, MapType
from achelous_shared.bpf.libbpf import libbpf
from achelous_shared.bpf.maps import Array, BpfMap

_ARRAYS: Final = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})
_CARRIED: Final = _ARRAYS | {MapType.HASH}
_DISPENSABLE: Final = frozenset({MapType.LRU_HASH, MapType.RINGBUF})


class _BtfInfo(ctypes.Structure):
    _fields_ = [("btf", c_uint64), ("size", c_uint32), ("id", c_uint32)]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a map holds. A dtype that no BTF tells is raw bytes."""

    layout: MapLayout
    key: np.dtype[Any]
    value: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class PinnedMap:
    """A map that a pin holds, as it was made; `fd` is the holder's to close."""

    name: str
    pin: Path
    fd: int
    shape: Shape

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)


def open_pinned(name: str, pin: Path) -> PinnedMap:
    """The map at `pin`, with the dtypes that its own BTF gives."""
    fd = check(libbpf().bpf_obj_get(os.fsencode(pin)), f"open the pinned map {pin}")
    try:
        info = map_info(fd)
        layout = MapLayout(
            MapType(info.type), info.key_size, info.value_size, info.max_entries, info.map_flags
        )
        btf = _kernel_btf(info.btf_id) if info.btf_id else None
        key = _dtype(btf, info.btf_key_type_id, info.key_size)
        value = _dtype(btf, info.btf_value_type_id, info.value_size)
    except BaseException:
        os.close(fd)
        raise
    return PinnedMap(name, pin, fd, Shape(layout, key, value))


def fits(pinned: Shape, wanted: Shape) -> bool:
    """Whether the new programs can use the pinned map as it is."""
    if pinned.layout != wanted.layout:
        return False
    pairs = ((pinned.key, wanted.key), (pinned.value, wanted.value))
    return all(old == new or ("V" in (old.kind, new.kind) and not old.names) for old, new in pairs)


def why_not(pinned: Shape, wanted: Shape) -> str | None:
    """What keeps entries of the pinned map from going over, or None."""
    old, new = pinned.layout, wanted.layout
    if old.type != new.type and not {old.type, new.type} <= _DISPENSABLE:
        return f"a {old.type.name} does not become a {new.type.name}"
    if new.type not in _CARRIED | _DISPENSABLE:
        return f"entries of a {new.type.name} are not carried over"
    for what, before, after in (
        ("key", pinned.key, wanted.key),
        ("value", pinned.value, wanted.value),
    ):
        if before != after and not (before.names and after.names):
            return f"no BTF tells the fields of its {what}"
    gone = set(pinned.key.names or ()) - set(wanted.key.names or ())
    return f"its key has no {', '.join(sorted(gone))} any more" if gone else None


@dataclass(frozen=True, slots=True)
class Carried:
    """A pinned map whose entries go into `new`, which takes its pin at the end."""

    pinned: PinnedMap
    new: BpfMap

    def copy(self) -> None:
        """All entries. Raises MapLayoutChanged if they do not fit."""
        if self.new.type not in _DISPENSABLE:
            keys, values = self._old().lookup_batch_all()
            if self.new.type in _ARRAYS:
                keys, values = keys[: self.new.max_entries], values[: self.new.max_entries]
            self._write(keys, values)

    def copy_missing(self) -> None:
        """Entries of a hash that have come since; what the new map has is newer and stays."""
        if self.new.type is MapType.HASH:
            keys, values = self._old().lookup_batch_all()
            there, _ = self.new.lookup_batch_all()
            missing = ~np.isin(_opaque(converted(keys, self.new.key_dtype)), _opaque(there))
            self._write(keys[missing], values[missing])

    def take_pin(self) -> None:
        """The pin names the new map from now on, without a moment in which it names none."""
        pin = self.pinned.pin
        beside = pin.with_name(f"{pin.name}-new")
        beside.unlink(missing_ok=True)
        check(libbpf().bpf_obj_pin(self.new.fd, os.fsencode(beside)), f"pin a map at {beside}")
        beside.rename(pin)

    def _old(self) -> BpfMap:
        shape = self.pinned.shape
        return BpfMap(self.pinned.name, self.pinned.fd, shape.layout, shape.key, shape.value)

    def _write(self, keys: Array, values: Array) -> None:
        new = self.new
        if len(keys) > new.max_entries:
            raise self._refused(f"it holds {len(keys)} entries, and only {new.max_entries} fit")
        try:
            made = converted(values, new.value_dtype)
            new.update_batch(converted(keys, new.key_dtype), made)
        except ValueError as error:
            raise self._refused(str(error)) from error

    def _refused(self, why: str) -> MapLayoutChanged:
        pinned, new = self.pinned, self.new
        sizes = new.key_dtype.itemsize, new.value_dtype.itemsize
        wanted = MapLayout(new.type, *sizes, new.max_entries, pinned.shape.layout.flags)
        return MapLayoutChanged(new.name, pinned.shape.layout, wanted, pinned.pin, why)


def converted(records: Array, wanted: np.dtype[Any]) -> Array:
    """Records (n, ...) in another layout. ValueError names a field that cannot go over."""
    if records.dtype == wanted:
        return records
    made = np.zeros(records.shape, wanted)
    _copy(records, made, "")
    return made


def _copy(old: Array, new: Array, name: str) -> None:
    if old.ndim != new.ndim:
        raise ValueError(f"field {name} has another number of dimensions")
    common = tuple(slice(min(pair)) for pair in zip(old.shape, new.shape, strict=True))
    old, new = old[common], new[common]
    if old.dtype.names and new.dtype.names:
        for field in new.dtype.names:
            if field in old.dtype.names:
                _copy(old[field], new[field], f"{name}.{field}".lstrip("."))
    elif old.dtype.names or new.dtype.names:
        raise ValueError(f"field {name} is a structure in one of the layouts only")
    else:
        new[...] = old.astype(new.dtype)
        if (new != old).any():
            raise ValueError(f"field {name} holds values that {new.dtype} does not")


def _opaque(records: Array) -> Array:
    """Records (n,) as bytes that can be compared."""
    return np.ascontiguousarray(records).view(f"V{records.dtype.itemsize}")


def _dtype(btf: Btf | None, type_id: int, size: int) -> np.dtype[Any]:
    if btf is None or not type_id:
        return np.dtype("<u4") if size == 4 else np.dtype(f"V{size}")
    dtype = to_dtype(btf, type_id)
    return np.dtype([("items", dtype)]) if dtype.subdtype else dtype


def _kernel_btf(number: int) -> Btf:
    fd = check(libbpf().bpf_btf_get_fd_by_id(number), f"open BTF {number}")
    try:
        info = _BtfInfo()
        _read_info(fd, info)
        raw = ctypes.create_string_buffer(info.size)
        info = _BtfInfo(btf=ctypes.addressof(raw), size=info.size)
        _read_info(fd, info)
        return Btf(raw.raw)
    finally:
        os.close(fd)


def _read_info(fd: int, info: _BtfInfo) -> None:
    size = c_uint32(ctypes.sizeof(info))
    check(
        libbpf().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)),
        f"read the BTF behind fd {fd}",
    )
