"""Ranges of a VPC's addresses, and the pages in which they are read: pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise

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
    spans: tuple[tuple[bytes, bytes], ...]
    """Lowest and highest address of each family that the VPC had, IPv4 first."""

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
        for bound in chain.from_iterable(reply.spans):
            if len(bound) != _ADDRESS:
                raise BadMessage(f"a span's end has {len(bound)} bytes, not {_ADDRESS}")
        return cls(part, reply.revision, entries, reply.done, reply.spans)

    def rest(self, count: int) -> Iterator[Range]:
        """What follows in the range: each of the `spans` in up to ``count`` ranges of equal size.

        Addresses of IPv4 are so few beside those of IPv6 that they need ranges of their own.
        """
        if self.done:
            return
        after = self.entries["ip"][-1].tobytes()
        ends = {end for span in self.spans for end in _ends(span, after, count)}
        inside = sorted(
            end for end in ends if after < end and (end < self.part.until or not self.part.until)
        )
        # What comes above all spans meanwhile belongs to the last range.
        if inside and not self.part.until:
            inside.pop()
        yield from (Range(*pair) for pair in pairwise([after, *inside, self.part.until]))


def _ends(span: tuple[bytes, bytes], after: bytes, count: int) -> Iterator[bytes]:
    """Where ``count`` ranges end that divide the part of a span that is above ``after``."""
    low, high = max(int.from_bytes(span[0]) - 1, int.from_bytes(after)), int.from_bytes(span[1])
    if low < high:
        for n in range(1, count + 1):
            yield (low + (high - low) * n // count).to_bytes(_ADDRESS)


def _check_rising(entries: Routes) -> None:
    high, low = np.ascontiguousarray(entries["ip"]).view(">u8").T
    rises = (high[1:] > high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] > low[:-1]))
    if not rises.all():
        raise MalformedTable("a page whose addresses do not rise")
