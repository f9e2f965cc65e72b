"""A BPF ring buffer read as numpy over its memory: no copy and no call per event."""

import errno
import mmap
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from achelous_shared.bpf.errors import BpfError
from achelous_shared.bpf.layout import MapType
from achelous_shared.bpf.maps import BpfMap

_HEADER: Final = 8  # u32 length with two flags, u32 page offset
_BUSY: Final = 1 << 31
_DISCARDED: Final = 1 << 30
_LENGTH: Final = _DISCARDED - 1


class RingBuffer:
    """The one reader of a RINGBUF map whose records all have `dtype`'s size.

    Layout (kernel docs, bpf/ringbuf.rst): a page with the consumer's position, a page with the
    producer's, and the data, mapped twice in a row so that no record is cut at the end. Records
    are read in the order of the producer's reservations. Relies on x86-64's ordering of loads and
    stores: a record's length is read before its data, and freed after the data was copied.
    """

    def __init__(self, map: BpfMap, dtype: np.dtype[Any]) -> None:  # noqa: A002 - the kernel's word
        if map.type is not MapType.RINGBUF:
            raise TypeError(f"map {map.name} is a {map.type.name}, not a RINGBUF")
        self.fd = map.fd
        self.dtype = dtype
        self._name = map.name
        self._size = map.max_entries
        self._bytes = np.dtype(f"V{dtype.itemsize}")
        self._step = -(-(_HEADER + dtype.itemsize) // 8) * 8
        page = mmap.PAGESIZE
        consumer = mmap.mmap(map.fd, page)
        shared = mmap.mmap(map.fd, page + 2 * self._size, access=mmap.ACCESS_READ, offset=page)
        self._consumed = np.frombuffer(consumer, np.uint64, 1)
        self._produced = np.frombuffer(shared, np.uint64, 1)
        self._data = memoryview(shared)[page:]

    def read(self, limit: int) -> npt.NDArray[Any]:
        """Up to `limit` committed events (n,), copied; their room is free again.

        Stops at a record that a program has reserved and not yet committed; skips discarded ones.
        Never waits: wait for `fd` to be readable. Raises BpfError, and reads nothing, where a
        record's length is not the dtype's.
        """
        parts: list[npt.NDArray[Any]] = []
        left = limit
        while left and len(lengths := self._committed(left)):
            at = int(self._consumed[0]) & (self._size - 1)
            events = np.ndarray(lengths.shape, self._bytes, self._data, at + _HEADER, (self._step,))
            parts.append(events[lengths & _DISCARDED == 0].view(self.dtype))
            self._consumed[0] += np.uint64(self._step * len(lengths))
            left -= len(parts[-1])
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts, dtype=self.dtype) if parts else np.empty(0, self.dtype)

    def _committed(self, limit: int) -> npt.NDArray[np.uint32]:
        """Length words of at most `limit` records, up to the first one still being written."""
        consumed = int(self._consumed[0])
        count = min((int(self._produced[0]) - consumed) // self._step, limit)
        lengths = np.ndarray(
            (count,), np.uint32, self._data, consumed & (self._size - 1), (self._step,)
        ).copy()
        busy = np.flatnonzero(lengths & _BUSY)
        if len(busy):
            lengths = lengths[: busy[0]]
        other = np.flatnonzero(lengths & _LENGTH != self.dtype.itemsize)
        if len(other):
            raise BpfError(
                errno.EPROTO,
                f"read ring {self._name}: a record of {lengths[other[0]] & _LENGTH} bytes where "
                f"the dtype has {self.dtype.itemsize}",
            )
        return lengths
