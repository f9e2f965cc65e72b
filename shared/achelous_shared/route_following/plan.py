"""What to do with a delta, a snapshot or a listing of revisions: pure decisions.

A VPC follows its deltas; after a gap it waits for its turn to be read whole, and is then read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

import numpy as np

from achelous_shared.routes import MAX_DELTA_ENTRIES, ROUTE, Routes
from achelous_shared.rsp_hash import Hashes

MAX_BUFFERED: Final = 131_072
"""Entries kept while one VPC is read; past it they are dropped, which shows as another gap."""
MAX_UNSAID: Final = 131_072
"""Changes of snapshots to be named one by one; past it everything is checked."""


class State(Enum):
    """Where one VPC's table stands."""

    FOLLOWING = auto()
    WAITING = auto()
    """For its snapshot to be asked for."""
    SYNCING = auto()
    """Its snapshot is being read."""


class Verdict(Enum):
    """How a delta relates to the revision held."""

    NEXT = auto()
    DUPLICATE = auto()
    GAP = auto()


class Action(Enum):
    """What to do with a delta."""

    APPLY = auto()
    IGNORE = auto()
    BUFFER = auto()
    ASK = auto()
    """For a snapshot, which will have what the delta has."""


TRANSITIONS: Final[Mapping[tuple[State, Verdict], Action]] = {
    (State.FOLLOWING, Verdict.NEXT): Action.APPLY,
    (State.FOLLOWING, Verdict.DUPLICATE): Action.IGNORE,
    (State.FOLLOWING, Verdict.GAP): Action.ASK,
    # A delta is published after its commit: a snapshot that is read later has it.
    (State.WAITING, Verdict.NEXT): Action.IGNORE,
    (State.WAITING, Verdict.DUPLICATE): Action.IGNORE,
    (State.WAITING, Verdict.GAP): Action.IGNORE,
    # What the delta is to the snapshot is known only when that has been read.
    (State.SYNCING, Verdict.NEXT): Action.BUFFER,
    (State.SYNCING, Verdict.DUPLICATE): Action.BUFFER,
    (State.SYNCING, Verdict.GAP): Action.BUFFER,
}
"""What to do with a delta. A VPC goes from FOLLOWING to WAITING when a snapshot is asked for, on to
SYNCING when its turn comes, and from there back to FOLLOWING, or to WAITING if it failed."""


@dataclass(frozen=True, slots=True)
class Delta:
    """A `messages.RouteDelta` unpacked."""

    vni: int
    base: int
    revision: int
    entries: Routes
    messages: int = 1
    """How many it was joined from."""


def joined(deltas: Sequence[Delta]) -> list[Delta]:
    """The same with those as one that follow each other in a VPC, up to `MAX_DELTA_ENTRIES`.

    From the base of the first to the revision of the last: it has the last entry of each route that
    changed between these, whatever the table's revision was there.
    """
    chains: list[list[Delta]] = []
    open_chains: dict[int, tuple[list[Delta], int]] = {}
    for delta in deltas:
        chain, size = open_chains.get(delta.vni, ([], 0))
        size += len(delta.entries)
        if not chain or chain[-1].revision != delta.base or size > MAX_DELTA_ENTRIES:
            chain, size = [], len(delta.entries)
            chains.append(chain)
        chain.append(delta)
        open_chains[delta.vni] = chain, size
    return [_join(chain) for chain in chains]


def _join(chain: Sequence[Delta]) -> Delta:
    first, last = chain[0], chain[-1]
    if first is last:
        return first
    entries = np.concatenate([delta.entries for delta in chain], dtype=ROUTE)
    return Delta(first.vni, first.base, last.revision, entries, len(chain))


@dataclass(slots=True)
class Vpc:
    """One VPC's table: its revision and, while it is read, the deltas that came meanwhile."""

    vni: int
    state: State = State.FOLLOWING
    revision: int = 0
    """0 of a VPC that never had a route, and of one whose revision is not known yet."""
    fresh: bool = False
    """Nothing of it was here when its snapshot began."""
    buffered: list[Delta] = field(default_factory=list)
    ahead: int = 0
    """The highest revision of which a snapshot's chunk may have left something in the table."""
    unsaid: list[Hashes] = field(default_factory=list)
    """What snapshots changed: to be remembered as of the revision that they end at and, if that is
    below ``ahead``, of the next one's as well, unless the deltas in between come."""

    def buffer(self, delta: Delta) -> None:
        """Keep a delta for the end of the snapshot, at most `MAX_BUFFERED` entries in all."""
        if sum(len(kept.entries) for kept in self.buffered) + len(delta.entries) > MAX_BUFFERED:
            self.buffered.clear()
        self.buffered.append(delta)


def judge(revision: int, delta: Delta) -> Verdict:
    """How ``delta`` relates to a table at ``revision``."""
    if delta.base > revision:
        return Verdict.GAP
    return Verdict.NEXT if delta.revision > revision else Verdict.DUPLICATE


def replay(revision: int, buffered: Iterable[Delta]) -> tuple[list[Delta], bool]:
    """The deltas to apply, in order, to a snapshot of ``revision``; and whether a gap follows."""
    due: list[Delta] = []
    for delta in sorted(buffered, key=lambda delta: (delta.base, delta.revision)):
        verdict = judge(revision, delta)
        if verdict is Verdict.GAP:
            return due, True
        if verdict is Verdict.NEXT:
            due.append(delta)
            revision = delta.revision
    return due, False


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a listing of all revisions asks for. VNIs, and for ``behind`` the revisions listed."""

    ask: list[int]
    """To be read whole: not held, or held at a revision that the controller never had."""
    behind: dict[int, int]
    """Deltas may be on their way: to be read whole if they have not come in a moment."""
    empty: list[int]
    """Not held, and never had a route: nothing to read."""
    gone: list[int]
    """Held, and not the controller's any more."""


def compare(following: Mapping[int, int], busy: frozenset[int], listed: Routes) -> Comparison:
    """Compare ``listed`` (`routes.REVISION`) with what was held before it was asked for.

    ``following``: revisions of the VPCs that followed then; ``busy``: those that waited for a
    snapshot or were being read, which settles them. A revision held before the listing was read
    can not be ahead of it, unless the VNI belongs to a new VPC or the database was restored.
    """
    revisions: dict[int, int] = dict(listed[["vni", "revision"]].tolist())
    unheld = [vni for vni in revisions if vni not in following and vni not in busy]
    astray = [vni for vni, held in following.items() if held > revisions.get(vni, held)]
    return Comparison(
        ask=astray + [vni for vni in unheld if revisions[vni]],
        behind={vni: revisions[vni] for vni, at in following.items() if at < revisions.get(vni, 0)},
        empty=[vni for vni in unheld if not revisions[vni]],
        gone=[vni for vni in following if vni not in revisions],
    )
