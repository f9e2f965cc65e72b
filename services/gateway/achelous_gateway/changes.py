"""What changed lately in each VPC: a bounded log of (revision, hash of the destination, time).

vSwitches ask it what became of what they hold. One that asks further back than the log reaches is
told so, and checks all that it holds of the VPC.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from achelous_shared.rsp_changes import MAX_AGE_MS, Ages
from achelous_shared.rsp_hash import Hashes

_FIRST: Final = 64
PER_VPC: Final = 65_536
"""Changes remembered of one VPC: a minute of 1,000 a second, and three bursts of 20,000."""
IN_ALL: Final = 4_194_304
"""Of all VPCs together, 84 MB at most; past it the VPC that was quiet for longest is forgotten."""
_NS_PER_MS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Found:
    """The changes up to ``revision``, the whole of each revision."""

    revision: int
    hashes: Hashes
    ages_ms: Ages
    gap: int | None = None
    """If not None: after this revision changes were missed; what came and went is not named."""


class VpcLog:
    """One VPC's changes in order of revision, in columns that grow as they are needed."""

    def __init__(self, floor: int, limit: int = PER_VPC) -> None:
        """``floor``: changes of higher revisions will all be here, those before are not."""
        self.floor = floor
        self._limit = limit
        self._gap = (floor, floor)
        """Of the last one, after which revision it begins and with which it ends."""
        self._revisions: npt.NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._hashes: Hashes = np.zeros(0, np.uint32)
        self._at_ns: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._used = 0

    def __len__(self) -> int:
        return self._used

    @property
    def capacity(self) -> int:
        """Changes that memory is held for."""
        return len(self._revisions)

    def append(self, revision: int, hashes: Hashes, now_ns: int, *, gap: int | None = None) -> None:
        """These destinations changed at ``revision``, which is above all that are here.

        ``gap``: they are what differed between that revision and this one, and what came and went
        in between is not known. Of gaps the last is remembered; those before are not asked across.
        """
        if gap is not None:
            self.floor = max(self.floor, self._gap[1])
            self._gap = (gap, revision)
        if len(hashes) > self._limit // 2:
            self.floor, self._used = revision, 0
            return
        self._make_room(len(hashes))
        end = self._used + len(hashes)
        self._revisions[self._used : end] = revision
        self._hashes[self._used : end] = hashes
        self._at_ns[self._used : end] = now_ns
        self._used = end

    def since(self, revision: int, stand: int, limit: int, now_ns: int) -> Found | None:
        """What changed after ``revision``, up to ``limit`` changes; ``stand``: the table's own.

        None: it does not reach back so far. Where ``limit`` cuts, it is between two revisions:
        what is left out is found from the one that is returned on.
        """
        if revision < self.floor:
            return None
        held = self._revisions[: self._used]
        begin = int(held.searchsorted(np.uint64(revision), "right"))
        end = self._used
        if end - begin > limit:
            end = int(held.searchsorted(held[begin + limit], "left"))
            stand = int(held[end - 1]) if end > begin else revision
        ages = (now_ns - self._at_ns[begin:end]) // _NS_PER_MS
        ages_ms = np.minimum(ages, MAX_AGE_MS).astype(np.uint16)
        gap, gap_end = self._gap
        across = revision < gap_end <= stand
        return Found(stand, self._hashes[begin:end], ages_ms, gap if across else None)

    def _make_room(self, more: int) -> None:
        need = self._used + more
        if need > self._limit:
            kept = min(self._used, self._limit // 2, self._limit - more)
            dropped = self._used - kept
            self.floor = int(self._revisions[dropped - 1])
            for column in (self._revisions, self._hashes, self._at_ns):
                column[:kept] = column[dropped : self._used].copy()
            self._used = kept
        elif need > self.capacity:
            size = min(self._limit, max(_FIRST, 1 << (need - 1).bit_length()))
            for name in ("_revisions", "_hashes", "_at_ns"):
                column = getattr(self, name)
                grown = np.zeros(size, column.dtype)
                grown[: self._used] = column[: self._used]
                setattr(self, name, grown)


class ChangeLogs:
    """The logs of all VPCs, bounded together. Times are nanoseconds of CLOCK_MONOTONIC."""

    def __init__(self, *, per_vpc: int = PER_VPC, in_all: int = IN_ALL) -> None:
        self._per_vpc = per_vpc
        self._in_all = in_all
        self._logs: OrderedDict[int, VpcLog] = OrderedDict()
        self._capacity = 0

    def begin(self, vni: int, revision: int) -> None:
        """A VPC's table is complete at ``revision``: what happened before is not known."""
        self.forget(vni)
        self._logs[vni] = VpcLog(revision, self._per_vpc)

    def forget(self, vni: int) -> None:
        """The VPC is gone."""
        log = self._logs.pop(vni, None)
        if log is not None:
            self._capacity -= log.capacity

    def append(
        self, vni: int, revision: int, hashes: Hashes, now_ns: int, *, gap: int | None = None
    ) -> None:
        """See `VpcLog.append`; a log that was given up begins anew after this."""
        if not len(hashes) and gap is None:
            return
        log = self._logs.get(vni)
        if log is None:
            self.begin(vni, revision)
            return
        before = log.capacity
        log.append(revision, hashes, now_ns, gap=gap)
        self._capacity += log.capacity - before
        self._logs.move_to_end(vni)
        while self._capacity > self._in_all and len(self._logs) > 1:
            self.forget(next(iter(self._logs)))

    def since(self, vni: int, revision: int, stand: int, limit: int, now_ns: int) -> Found | None:
        """See `VpcLog.since`; None too of a VPC whose log was given up."""
        if revision == stand:
            return Found(stand, np.zeros(0, np.uint32), np.zeros(0, np.uint16))
        log = self._logs.get(vni)
        if log is None:
            return None
        return log.since(revision, stand, limit, now_ns)
