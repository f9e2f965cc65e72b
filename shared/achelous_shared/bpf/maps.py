"""eBPF maps as numpy: keys and values are records of the layouts that C defines."""

import ctypes
import errno
import mmap
from ctypes import c_uint32
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from achelous_shared.bpf.errors import BpfError, check
from achelous_shared.bpf.layout import PER_CPU, MapLayout, MapType
from achelous_shared.bpf.libbpf import libbpf

ANY: Final = 0  # create or replace
NOEXIST: Final = 1  # create, or EEXIST
EXIST: Final = 2  # replace, or ENOENT
LOCK: Final = 4  # hold the value's bpf_spin_lock; may be or-ed to the others

BATCH: Final = 65_536

Array = npt.NDArray[Any]
Scalar = np.generic | Array | int
"""A scalar or record of the map's dtype (an array of no dimension too), or an int for integers."""


class BpfMap:
    """One map. Values of per-CPU maps have a last axis of `cpus`, the possible CPUs.

    Build keys in arrays made by `np.zeros`: in a hash, padding bytes are part of the key.
    Failures raise BpfError with the kernel's errno (E2BIG: the map is full).
    """

    def __init__(
        self,
        name: str,
        fd: int,
        layout: MapLayout,
        key_dtype: np.dtype[Any],
        value_dtype: np.dtype[Any],
    ) -> None:
        self.name = name
        self.fd = fd
        self.type = layout.type
        self.key_dtype = key_dtype
        self.value_dtype = value_dtype
        self.max_entries = layout.max_entries
        self.cpus = libbpf().libbpf_num_possible_cpus() if self.type in PER_CPU else 0
        self._slot = -(-layout.value_size // 8) * 8  # a value in per-CPU and mmapped memory
        self._value_size = self._slot * self.cpus if self.cpus else layout.value_size

    def lookup(self, key: Scalar) -> np.void | None:
        """A copy of the value (a record, or a numpy scalar where C has a scalar), or None."""
        self._refuse_per_cpu("per_cpu_lookup")
        buffer = self._lookup(key)
        if buffer is None:
            return None
        return cast(np.void, np.frombuffer(buffer, self.value_dtype)[0])

    def update(self, key: Scalar, value: Scalar, flags: int = ANY) -> None:
        """Write one entry. `flags`: ANY, NOEXIST (EEXIST if there), EXIST (ENOENT if not)."""
        self._refuse_per_cpu("per_cpu_update")
        self._update(
            self._key(key), _bytes(value, self.value_dtype, f"value of {self.name}"), flags
        )

    def delete(self, key: Scalar) -> bool:
        """Remove one entry; False if there was none."""
        result = libbpf().bpf_map_delete_elem(self.fd, self._key(key))
        if result == -errno.ENOENT:
            return False
        check(result, f"remove an entry of map {self.name}")
        return True

    def lookup_batch_all(self) -> tuple[Array, Array]:
        """All keys (n,) and values (n,), per-CPU (n, cpus), in the map's own order.

        What other writers add or remove meanwhile may or may not be seen.
        """
        keys, values = [], []
        cursor: bytes | None = None
        while True:
            some_keys, some_values, cursor = self.scan(cursor, BATCH)
            keys.append(some_keys)
            values.append(some_values)
            if cursor is None:
                # The dtype is named because numpy would turn big-endian fields into native ones.
                return (
                    np.concatenate(keys, dtype=self.key_dtype),
                    np.concatenate(values, dtype=self.value_dtype),
                )

    def scan(self, cursor: bytes | None, count: int) -> tuple[Array, Array, bytes | None]:
        """One slice of about `count` entries, and the cursor for the next; None at the end.

        A hash map is read by whole buckets: a slice is larger only if one bucket is, and an
        entry that stays in the map is seen exactly once.
        """
        count = min(count, self.max_entries)
        after = ctypes.create_string_buffer(max(4, self.key_dtype.itemsize))
        while True:
            keys = np.empty(count, self.key_dtype)
            raw = np.empty((count, self._value_size), np.uint8)
            read = c_uint32(count)
            result = libbpf().bpf_map_lookup_batch(
                self.fd, cursor, after, keys.ctypes.data, raw.ctypes.data, ctypes.byref(read), None
            )
            if result != -errno.ENOSPC:
                break
            count *= 2  # the next bucket alone holds more than this slice
        if result != -errno.ENOENT:
            check(result, f"read map {self.name} in a batch of {count}")
        last = result == -errno.ENOENT
        return keys[: read.value], self._unpack(raw[: read.value]), None if last else after.raw

    def update_batch(self, keys: Array, values: Array) -> None:
        """Write keys (n,) and values (n,), per-CPU (n, cpus), replacing what is there.

        On failure the entries before the failing one are written.
        """
        keys = _contiguous(keys, self.key_dtype, f"keys of {self.name}")
        values = _contiguous(values, self.value_dtype, f"values of {self.name}")
        if values.shape != (*keys.shape, *self._axes) or keys.ndim != 1:
            raise TypeError(
                f"map {self.name}: keys {keys.shape} do not match values {values.shape}"
            )
        raw = self._pack(values)
        for start in range(0, len(keys), BATCH):
            wanted = min(BATCH, len(keys) - start)
            done = c_uint32(wanted)
            result = libbpf().bpf_map_update_batch(
                self.fd,
                keys.ctypes.data + start * self.key_dtype.itemsize,
                raw.ctypes.data + start * self._value_size,
                ctypes.byref(done),
                None,
            )
            check(result, f"write entry {start + done.value} of {len(keys)} into map {self.name}")

    def delete_batch(self, keys: Array) -> int:
        """Remove keys (n,); missing ones are skipped. Returns how many were removed."""
        keys = _contiguous(keys, self.key_dtype, f"keys of {self.name}")
        at = deleted = 0
        while at < len(keys):
            done = c_uint32(min(BATCH, len(keys) - at))
            result = libbpf().bpf_map_delete_batch(
                self.fd,
                keys.ctypes.data + at * self.key_dtype.itemsize,
                ctypes.byref(done),
                None,
            )
            deleted += done.value
            at += done.value
            if result == -errno.ENOENT:
                at += 1  # the kernel stops at a key that is not there
            else:
                check(result, f"delete entry {at} of {len(keys)} from map {self.name}")
        return deleted

    def mmap(self) -> Array:
        """A live, writable view (max_entries,) of an array map with BPF_F_MMAPABLE.

        It stays valid after the object is closed.
        """
        try:
            memory = mmap.mmap(self.fd, self._slot * self.max_entries)
        except OSError as error:
            raise BpfError(error.errno or 0, f"mmap map {self.name} (BPF_F_MMAPABLE?)") from error
        return np.ndarray((self.max_entries,), self.value_dtype, memory, strides=(self._slot,))

    def per_cpu_lookup(self, key: Scalar) -> Array:
        """The values (cpus,) of one entry; KeyError if there is none."""
        buffer = self._lookup(key)
        if buffer is None:
            raise KeyError(f"map {self.name} has no entry {key}")
        return cast(Array, self._unpack(np.frombuffer(buffer, np.uint8)[np.newaxis])[0])

    def per_cpu_update(self, key: Scalar, values: Array, flags: int = ANY) -> None:
        """Write the values (cpus,) of one entry, for example zeros before a slot is used again."""
        values = _contiguous(values, self.value_dtype, f"values of {self.name}")
        if values.shape != self._axes:
            raise TypeError(f"map {self.name} wants values {self._axes}, not {values.shape}")
        self._update(self._key(key), self._pack(values[np.newaxis]).tobytes(), flags)

    def per_cpu_all(self) -> Array:
        """The values (max_entries, cpus) of a per-CPU array: sum over axis 1 for the totals."""
        if self.type is not MapType.PERCPU_ARRAY:
            raise TypeError(f"map {self.name} is a {self.type.name}, not a PERCPU_ARRAY")
        return self.lookup_batch_all()[1]

    @property
    def _axes(self) -> tuple[int, ...]:
        return (self.cpus,) if self.cpus else ()

    def _key(self, key: Scalar) -> bytes:
        return _bytes(key, self.key_dtype, f"key of {self.name}")

    def _lookup(self, key: Scalar) -> Any:
        buffer = ctypes.create_string_buffer(self._value_size)
        result = libbpf().bpf_map_lookup_elem(self.fd, self._key(key), buffer)
        if result == -errno.ENOENT:
            return None
        check(result, f"look up in map {self.name}")
        return buffer

    def _update(self, key: bytes, value: bytes, flags: int) -> None:
        check(
            libbpf().bpf_map_update_elem(self.fd, key, value, flags),
            f"write into map {self.name} (at most {self.max_entries} entries)",
        )

    def _refuse_per_cpu(self, instead: str) -> None:
        if self.cpus:
            raise TypeError(f"map {self.name} holds a value per CPU: use {instead}")

    def _unpack(self, raw: Array) -> Array:
        """Values of bytes (n, value size) as the kernel lays them out, without copying."""
        shape = (len(raw), *self._axes)
        strides = (self._value_size, self._slot) if self.cpus else (self._value_size,)
        return np.ndarray(shape, self.value_dtype, raw, strides=strides)

    def _pack(self, values: Array) -> Array:
        if not self.cpus:
            return values
        raw = np.zeros((len(values), self._value_size), np.uint8)
        self._unpack(raw)[...] = values
        return raw


def _bytes(value: Scalar, dtype: np.dtype[Any], what: str) -> bytes:
    if isinstance(value, np.generic | np.ndarray):
        if value.dtype == dtype and value.ndim == 0:
            return value.tobytes()
        raise TypeError(f"{what} must be a scalar of {dtype}, not {value.dtype} {value.shape}")
    if dtype.kind not in "iub":
        raise TypeError(f"{what} must be a record of {dtype}, not {value!r}")
    return np.array(value, dtype).tobytes()


def _contiguous(values: Array, dtype: np.dtype[Any], what: str) -> Array:
    if not isinstance(values, np.ndarray) or values.dtype != dtype:
        found = getattr(values, "dtype", type(values).__name__)
        raise TypeError(f"{what} must be an array of {dtype}, not of {found}")
    return np.ascontiguousarray(values)
