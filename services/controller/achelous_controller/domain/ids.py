"""Ids of objects: UUIDv7, so that new rows are neighbours in their indexes."""

import os
import time
from collections.abc import Iterator
from typing import Final
from uuid import UUID

import numpy as np
import numpy.typing as npt
from uuid_utils.compat import uuid7

ID_BYTES: Final = 16

Ids = npt.NDArray[np.uint8]
"""(n, 16): ids as bytes."""

_HEX: Final = np.frombuffer(bytes(range(256)).hex().encode(), np.uint8).reshape(256, 2)
_WRITTEN: Final = 36
_DIGITS_AT: Final = [place for place in range(_WRITTEN) if place not in (8, 13, 18, 23)]

_VERSION_7: Final = np.uint64(7 << 12)
_VARIANT: Final = np.uint64(2 << 62)
_COUNTED: Final = 42
"""The bits of an id that stay random in `new_ids`, below those that count."""


def new_id() -> UUID:
    """A fresh id, in order of time."""
    return uuid7()


def new_ids(count: int) -> Ids:
    """As many fresh ids, strictly ascending; at most 2**31.

    RFC 9562, 6.2, method 1: of the 74 random bits the upper 32 count on from a random number.
    """
    drawn = np.frombuffer(os.urandom(8 * count), ">u8")
    begin = np.uint64(int.from_bytes(os.urandom(4)) >> 1)
    counter = np.arange(count, dtype=np.uint64) + begin
    ids = np.empty((count, 2), ">u8")
    milliseconds = np.uint64(time.time_ns() // 1_000_000 << 16)
    ids[:, 0] = milliseconds | _VERSION_7 | counter >> np.uint64(20)
    rest = (counter & np.uint64((1 << 20) - 1)) << np.uint64(_COUNTED)
    ids[:, 1] = _VARIANT | rest | drawn >> np.uint64(64 - _COUNTED)
    return ids.view(np.uint8)


def texts(ids: Ids) -> list[str]:
    """How each is written."""
    written = np.full((len(ids), _WRITTEN), ord("-"), np.uint8)
    written[:, _DIGITS_AT] = digits(ids)
    text = written.tobytes().decode()
    return [text[start : start + _WRITTEN] for start in range(0, len(text), _WRITTEN)]


def digits(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The hexadecimal digits of rows of bytes (n, k), as bytes (n, 2k)."""
    return _HEX[data].reshape(len(data), -1)


def packed(ids: list[UUID]) -> Ids:
    """The bytes of ids."""
    return np.frombuffer(b"".join([each.bytes for each in ids]), np.uint8).reshape(-1, ID_BYTES)


def unpacked(data: bytes) -> Iterator[UUID]:
    """The ids whose bytes lie one after another."""
    return (UUID(bytes=data[at : at + ID_BYTES]) for at in range(0, len(data), ID_BYTES))
