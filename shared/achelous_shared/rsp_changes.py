"""RSP's question "what changed in these VPCs since I last asked", and its answer.

    watch entry     magic 2 | options 2 | vni 4 | since 8                                    = 16 B
    changes entry   watch entry | status 1 | reserved 3 | count 4 | revision 8               = 32 B

After the entries of a CHANGES message come the changes of all of them, first to last: ``count``
hashes of destinations each (4 bytes, `rsp_hash`), then for each hash how long ago the gateway
applied the change (2 bytes, milliseconds, saturating). An age and not a time: no two clocks are
compared.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from achelous_shared.rsp import (
    HEADER_BYTES,
    MAGIC,
    NO_OPTIONS,
    Entries,
    Head,
    MessageType,
    Options,
    RspError,
    header,
    read_entries,
    read_header,
)
from achelous_shared.rsp_hash import Hashes

Ages = npt.NDArray[np.uint16]

_WATCH_FIELDS: Final = [("magic", ">u2"), ("options", ">u2"), ("vni", ">u4"), ("since", ">u8")]
WATCH: Final = np.dtype(_WATCH_FIELDS)
CHANGES: Final = np.dtype(
    [
        *_WATCH_FIELDS,
        ("status", "u1"),
        ("reserved", "u1", (3,)),
        ("count", ">u4"),
        ("revision", ">u8"),
    ]
)
_HASH: Final = np.dtype(">u4")
_AGE: Final = np.dtype(">u2")
_CHANGE_BYTES: Final = _HASH.itemsize + _AGE.itemsize

MAX_CHANGES: Final = 65_536
"""Hashes of one message: with its entries 416 KiB. What is left out is asked for once more."""
MAX_AGE_MS: Final = 65_535


class Status(IntEnum):
    """What a gateway says of one VPC."""

    CHANGES = 1
    """The hashes are all that changed after ``since`` up to ``revision``."""
    RECHECK = 2
    """It does not remember as far back as ``since``: anything may have changed."""
    UNKNOWN_VNI = 3
    GAP = 4
    """As CHANGES, but the gateway missed some after the answer's ``since``, which is its own and
    not the question's: a route that came and went since then is not among the hashes. Entries
    whose routes are of a higher revision than that are to be asked about."""


_FIRST: Final = np.uint8(Status.CHANGES)
_LAST: Final = np.uint8(Status.GAP)


@dataclass(frozen=True, slots=True)
class Changes:
    """A decoded answer. ``entries``: dtype `CHANGES`; columns as in the message, end to end."""

    head: Head
    entries: Entries
    hashes: Hashes
    ages_ms: Ages

    def each(self) -> Iterator[tuple[Entries, Hashes, Ages]]:
        """Each VPC's entry with its part of the columns."""
        at = 0
        for entry, count in zip(self.entries, self.entries["count"].tolist(), strict=True):
            yield entry, self.hashes[at : at + count], self.ages_ms[at : at + count]
            at += count


def watches(vnis: npt.ArrayLike, since: npt.ArrayLike) -> Entries:
    """Entries that ask for the changes of ``vnis`` (n,) after the revisions ``since`` (n,)."""
    vni_column = np.asarray(vnis, np.uint32)
    entries = np.zeros(len(vni_column), WATCH)
    entries["magic"] = MAGIC
    entries["vni"] = vni_column
    entries["since"] = since
    return entries


def encode_watches(message_id: int, entries: Entries, options: Options = NO_OPTIONS) -> bytes:
    """The bytes of a question about up to `rsp.MAX_ENTRIES` VPCs."""
    head = header(MessageType.WATCH, message_id, len(entries), entries.nbytes, options)
    return head + entries.tobytes()


def decode_watches(data: bytes) -> tuple[Head, Entries]:
    """A question: its header and its entries (`WATCH`). Raises `RspError`."""
    head = read_header(data, MessageType.WATCH)
    return head, read_entries(data, head.total, WATCH)


def encode_changes(
    message_id: int, entries: Entries, hashes: Hashes, ages_ms: Ages, options: Options = NO_OPTIONS
) -> bytes:
    """The bytes of an answer: ``entries`` (`CHANGES`), and both columns of their changes."""
    body = entries.tobytes() + hashes.astype(_HASH).tobytes() + ages_ms.astype(_AGE).tobytes()
    return header(MessageType.CHANGES, message_id, len(entries), len(body), options) + body


def decode_changes(data: bytes) -> Changes:
    """The answer in ``data``; every count, size and status is checked. Raises `RspError`."""
    head = read_header(data, MessageType.CHANGES)
    begin = HEADER_BYTES + head.total * CHANGES.itemsize
    if len(data) < begin:
        raise RspError(f"{len(data)} bytes, {head.total} entries alone take {begin}")
    counted = np.frombuffer(data, CHANGES, head.total, HEADER_BYTES)["count"]
    total = int(counted.sum(dtype=np.uint64))
    if total > MAX_CHANGES:
        raise RspError(f"{total} changes, a message holds at most {MAX_CHANGES}")
    entries = read_entries(data, head.total, CHANGES, more=total * _CHANGE_BYTES)
    if (entries["status"] - _FIRST > _LAST - _FIRST).any():  # 0 becomes 255
        raise RspError(f"a status is not in {Status.CHANGES.value}..{Status.GAP.value}")
    hashes = np.frombuffer(data, _HASH, total, begin).astype(np.uint32)
    ages = np.frombuffer(data, _AGE, total, begin + total * _HASH.itemsize).astype(np.uint16)
    return Changes(head, entries, hashes, ages)
