"""Keeps the route table and the data plane equal, and each VPC at its revision.

Whatever changes routes goes through here, in slices between which RSP is answered, one change
after the other: a writer holds the lock for all slices of a delta or of a snapshot's chunk.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from achelous_shared.route_following.index import Rows
from achelous_shared.route_following.plan import (
    MAX_UNSAID,
    TRANSITIONS,
    Action,
    Delta,
    State,
    Verdict,
    Vpc,
    judge,
    replay,
)
from achelous_shared.route_following.seams import Journal, Sink
from achelous_shared.route_following.stats import FollowStats
from achelous_shared.route_following.table import (
    Changes,
    RouteTable,
    TableFull,
    latest,
)
from achelous_shared.routes import REVISION, ROUTE, Routes
from achelous_shared.rsp_hash import Hashes, destination_hashes

log = logging.getLogger(__name__)

_SLICE: Final = 1024
"""Entries of a delta changed before RSP gets its turn: about 0.35 ms."""
_MERGED: Final = 2048
"""Entries of a snapshot, likewise: 0.4 ms of a first one, 1 ms of another."""
_SETTLE_S: Final = 1.0
"""For deltas that are on their way while revisions are compared."""


class Forgotten(Exception):
    """The VPC was forgotten while it was read."""


class Keeper:
    """The tables of all VPCs. ``moved`` is told each VNI whose revision changed.

    ``sink``: the data plane; none where packets go by the table itself.
    """

    def __init__(
        self,
        table: RouteTable,
        sink: Sink | None,
        journal: Journal,
        stats: FollowStats,
        moved: Callable[[int], None],
    ) -> None:
        self.table = table
        self.vpcs: dict[int, Vpc] = {}
        self.wanted: asyncio.Queue[int] = asyncio.Queue()
        """VPCs that wait for a snapshot: bounded by their number and by how often they go."""
        self._sink = sink
        self._journal = journal
        self._stats = stats
        self._moved = moved
        self._writer = asyncio.Lock()

    def adopt(self) -> None:
        """Have every VPC compared of which the table has routes that the data plane still held.

        Their entries say nothing about what was deleted meanwhile, so no revision is assumed.
        """
        for vni in self.table.vnis():
            self._ask(self.introduce(vni))
        if len(self.table):
            log.info("adopted %d routes of %d VPCs", len(self.table), len(self.vpcs))

    def revisions(self, vnis: Iterable[int] | None = None) -> Routes:
        """`routes.REVISION` of these VPCs as far as they are held, or of all; 0: not known yet."""
        held = self.vpcs if vnis is None else [vni for vni in vnis if vni in self.vpcs]
        pairs = [(vni, self.vpcs[vni].revision) for vni in held]
        return np.array(pairs, REVISION)

    def introduce(self, vni: int) -> Vpc:
        """The VPC of this VNI; without a route, at revision 0, if it was not known."""
        vpc = self.vpcs.get(vni)
        if vpc is None:
            vpc = self.vpcs[vni] = Vpc(vni)
            self._stand_at(vpc, 0)
            self._journal.begin(vni, 0)
        return vpc

    def ask(self, vni: int) -> None:
        """Have a VPC read whole, unless that is under way already."""
        vpc = self.introduce(vni)
        if vpc.state is State.FOLLOWING:
            self._ask(vpc)

    async def ask_behind(self, behind: Mapping[int, int]) -> None:
        """Have those VPCs read whole that do not come to these revisions by the deltas that are on
        their way; what is not held any more is left alone."""
        if behind:
            await asyncio.sleep(_SETTLE_S)
        for vni, revision in behind.items():
            if vni in self.vpcs and self.vpcs[vni].revision < revision:
                self.ask(vni)

    async def take(self, delta: Delta) -> None:
        """Do what the delta asks for in the state that its VPC is in."""
        async with self._writer:
            vpc = self.introduce(delta.vni)
            verdict = judge(vpc.revision, delta)
            match TRANSITIONS[vpc.state, verdict]:
                case Action.APPLY:
                    await self._apply_or_ask(vpc, delta)
                case Action.ASK:
                    log.info(
                        "VPC %d: at revision %d, got a delta from %d to %d",
                        *(delta.vni, vpc.revision, delta.base, delta.revision),
                    )
                    self._stats.deltas_gap += 1
                    self._ask(vpc)
                case Action.BUFFER:
                    self._stats.deltas_buffered += delta.messages
                    vpc.buffer(delta)
                case Action.IGNORE:
                    if verdict is Verdict.DUPLICATE:
                        self._stats.deltas_duplicate += delta.messages

    def begin(self, vni: int) -> Vpc | None:
        """A snapshot of this VPC is about to be asked for; None if it is not to be any more."""
        vpc = self.vpcs.get(vni)
        if vpc is None or vpc.state is not State.WAITING:
            return None
        vpc.state = State.SYNCING
        vpc.fresh = not self.table.count(vni)
        vpc.ahead = 0
        vpc.buffered.clear()
        return vpc

    async def merge(self, vpc: Vpc, revision: int, chunk: Routes) -> Rows:
        """Make the routes to the addresses of a snapshot's chunk, which is of ``revision``, as it
        says; returns their rows.

        Without regard to revisions: what is held came from commits that are older than the read.
        Raises `TableFull` and `Forgotten`.
        """
        merge = self.table.load if vpc.fresh else self.table.restate
        made, rows = [], [np.zeros(0, np.int64)]
        async with self._writer:
            self._must_be_held(vpc)
            vpc.ahead = max(vpc.ahead, revision)
            try:
                for part in _slices(chunk, _MERGED):
                    changes, found = merge(vpc.vni, part)
                    self._note(vpc, changes)
                    made.append(changes)
                    rows.append(found)
                    await asyncio.sleep(0)
            finally:
                await self._pass_on(made)
        return np.concatenate(rows)

    async def finish(self, vpc: Vpc, revision: int, rows: Rows) -> None:
        """The snapshot is read: remove what it did not have, apply what came meanwhile.

        ``rows``: of all its entries; ``revision``: that of its first chunk. Later chunks may hold
        changes that are newer: their deltas are applied once more, all that are there in one
        batch, so that an entry never goes back to an older state. Raises `TableFull` and
        `Forgotten`.
        """
        async with self._writer:
            self._must_be_held(vpc)
            await self._remove(vpc, self.table.rows_except(vpc.vni, rows))
            due, gap = replay(revision, vpc.buffered)
            if due:
                entries = np.concatenate([delta.entries for delta in due], dtype=ROUTE)
                hashes = destination_hashes(vpc.vni, entries["ip"])
                vpc.unsaid.append(hashes)
                await self._apply(vpc.vni, entries, hashes)
                revision = due[-1].revision
            self._end_at(vpc, revision)
            vpc.buffered.clear()
            vpc.state = State.FOLLOWING
            self._stats.snapshots += 1
            self._moved(vpc.vni)
            if gap:
                self._ask(vpc)

    def retry(self, vpc: Vpc) -> None:
        """The snapshot failed: it is to be asked for again, if the VPC is still held."""
        vpc.buffered.clear()
        if self.vpcs.get(vpc.vni) is vpc:
            self._ask(vpc)

    async def forget(self, vni: int) -> None:
        """The VPC is no more: remove its routes."""
        async with self._writer:
            vpc = self.vpcs.pop(vni, Vpc(vni))
            await self._remove(vpc, self.table.rows_except(vni, np.zeros(0, np.int64)))
            self._journal.forget(vni)

    def _must_be_held(self, vpc: Vpc) -> None:
        if self.vpcs.get(vpc.vni) is not vpc:
            raise Forgotten(f"VPC {vpc.vni} was forgotten while it was read")

    def _stand_at(self, vpc: Vpc, revision: int) -> None:
        vpc.revision = revision
        if revision >= vpc.ahead:
            vpc.unsaid.clear()
        self._journal.stand_at(vpc.vni, revision)

    def _end_at(self, vpc: Vpc, revision: int) -> None:
        """A snapshot ends at ``revision``: say what it changed, or begin to remember.

        One that ends before where the table stood is of a database that went back: what vSwitches
        hold is of revisions that will come again, and they are to check it all.
        """
        few = sum(map(len, vpc.unsaid)) <= MAX_UNSAID
        if 0 < vpc.revision < revision and few:
            hashes = np.concatenate([np.zeros(0, np.uint32), *vpc.unsaid])
            now_ns = time.monotonic_ns()
            self._journal.append(vpc.vni, revision, hashes, now_ns, gap=vpc.revision)
        elif revision != vpc.revision or vpc.unsaid:
            self._journal.begin(vpc.vni, max(revision, vpc.ahead))
            vpc.unsaid.clear()
        self._stand_at(vpc, revision)

    def _note(self, vpc: Vpc, changes: Changes) -> None:
        """Remember until the snapshot's end what it changed, if there was a table before."""
        if vpc.revision and len(changes):
            ips = np.concatenate((changes.keys["ip"], changes.removed["ip"]))
            vpc.unsaid.append(destination_hashes(vpc.vni, ips))

    def _ask(self, vpc: Vpc) -> None:
        vpc.state = State.WAITING
        self.wanted.put_nowait(vpc.vni)

    async def _apply_or_ask(self, vpc: Vpc, delta: Delta) -> None:
        hashes = destination_hashes(vpc.vni, delta.entries["ip"])
        try:
            await self._apply(vpc.vni, delta.entries, hashes)
        except TableFull as error:
            log.warning("VPC %d stays at revision %d: %s", vpc.vni, vpc.revision, error)
            self._stats.table_full += 1
            vpc.unsaid.append(hashes)  # some of it may have been applied
            self._ask(vpc)
        else:
            self._journal.append(vpc.vni, delta.revision, hashes, time.monotonic_ns())
            self._stand_at(vpc, delta.revision)
            self._stats.deltas_applied += delta.messages
            self._moved(vpc.vni)

    async def _apply(self, vni: int, entries: Routes, hashes: Hashes) -> None:
        """In the table slice by slice, and then in the data plane. Raises `TableFull`."""
        made = []
        try:
            for part in _slices(latest(entries, hashes), _SLICE):
                made.append(self.table.apply(vni, part))
                await asyncio.sleep(0)
        finally:
            await self._pass_on(made)

    async def _pass_on(self, made: Sequence[Changes]) -> None:
        if self._sink is not None:
            await self._sink.apply(Changes.join(made))

    async def _remove(self, vpc: Vpc, rows: Rows) -> None:
        for part in _slices(rows, _SLICE):
            changes = self.table.remove(vpc.vni, part)
            await self._pass_on([changes])
            self._note(vpc, changes)
            await asyncio.sleep(0)


Element = TypeVar("Element", bound=np.generic)


def _slices(batch: npt.NDArray[Element], size: int) -> Iterator[npt.NDArray[Element]]:
    return (batch[at : at + size] for at in range(0, len(batch), size))
