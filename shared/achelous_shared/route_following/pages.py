"""Ranges of a VPC's addresses, and the pages in which they are read: pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from achelous_shared.messages import BadMessage, SnapshotReply
from achelous_shared.routes import MalformedTable, Routes, unpack

_ADDRESS = 16


@dataclass(frozen=True, slots=True)
class Range:
    """Addresses above ``after`` up to ``until``; 16 bytes, or none where it is open."""

    after: bytes = b""
    until: bytes = b""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a range, checked."""

    part: Range
    revision: int
    entries: Routes
    done: bool
    last: bytes
    """The highest address of the VPC when it was read, or none."""

    @classmethod
    def of(cls, part: Range, reply: SnapshotReply) -> "Page":
        """Raises `MalformedTable` unless the addresses rise, within ``part``, and `BadMessage`."""
        entries = unpack(reply.entries)
        if len(entries):
            _check_rising(entries)
            if entries["ip"][0].tobytes() <= part.after:
                raise MalformedTable("a page that does not go on after the one before")
            if part.until and entries["ip"][-1].tobytes() > part.until:
                raise MalformedTable("a page that goes on beyond the range that was asked for")
        elif not reply.done:
            raise MalformedTable("a page without entries that is not the last one")
        if len(reply.last) not in (0, _ADDRESS):
            raise BadMessage(f"last has {len(reply.last)} bytes, not {_ADDRESS} or none")
        return cls(part, reply.revision, entries, reply.done, reply.last)

    def rest(self, count: int) -> Iterator[Range]:
        """What follows in the range, in up to ``count`` ranges of equal size up to `last`."""
        if self.done:
            return
        after = self.entries["ip"][-1].tobytes()
        low, high = int.from_bytes(after), int.from_bytes(self.last)
        steps = {low + (high - low) * n // count for n in range(1, count)}
        bounds = [
            after,
            *(step.to_bytes(_ADDRESS) for step in sorted(steps) if step > low),
            self.part.until,
        ]
        yield from (Range(*pair) for pair in pairwise(bounds))


def _check_rising(entries: Routes) -> None:
    high, low = np.ascontiguousarray(entries["ip"]).view(">u8").T
    rises = (high[1:] > high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] > low[:-1]))
    if not rises.all():
        raise MalformedTable("a page whose addresses do not rise")
