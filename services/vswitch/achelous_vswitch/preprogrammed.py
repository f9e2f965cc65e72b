"""The VPCs of which this host shall hold every route: follows them, and writes all that comes.

As a gateway does for all VPCs: a snapshot, then deltas, a snapshot again after a gap, and all
revisions compared now and then. Nothing of them is learned, and none of it expires. What does not
fit is learned as in any other VPC.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np

from achelous_shared import subjects
from achelous_shared.bus import Bus
from achelous_shared.messages import BadMessage
from achelous_shared.route_following.comparing import compare_forever
from achelous_shared.route_following.deltas import read_delta
from achelous_shared.route_following.keeper import Keeper
from achelous_shared.route_following.plan import Delta, State, compare
from achelous_shared.route_following.revisions import read_revisions
from achelous_shared.route_following.seams import NoJournal
from achelous_shared.route_following.snapshots import Snapshots
from achelous_shared.route_following.stats import FollowStats
from achelous_shared.routes import REVISION, MalformedTable, Routes
from achelous_vswitch.dataplane import Dataplane
from achelous_vswitch.fc import ForwardingCache
from achelous_vswitch.partial_table import PartialTable
from achelous_vswitch.programmed import ProgrammedSlots
from achelous_vswitch.settings import VswitchSettings

log = logging.getLogger(__name__)

_QUEUED: Final = 64
"""Deltas that wait to be applied; the bus holds those behind them."""


class Preprogrammed:
    """``moved`` is called when a VPC's revision here changed. Adopts what the packet path holds."""

    def __init__(
        self,
        bus: Bus,
        dataplane: Dataplane,
        cache: ForwardingCache,
        settings: VswitchSettings,
        moved: Callable[[], None],
    ) -> None:
        self._bus = bus
        self.stats = FollowStats()
        self.table = PartialTable(settings.max_preprogrammed)
        slots = ProgrammedSlots(dataplane.fc, dataplane.fc_index, cache, self.table.capacity)
        slots.adopt(self.table)
        self._keeper = Keeper(self.table, slots, NoJournal(), self.stats, lambda _: moved())
        self._keeper.adopt()
        self._snapshots = Snapshots(bus, self._keeper, self.stats)
        self._deltas: asyncio.Queue[Delta] = asyncio.Queue(_QUEUED)
        self._wanted: frozenset[int] = frozenset()
        self._changed = asyncio.Event()
        self._due = asyncio.Event()

    @property
    def vnis(self) -> frozenset[int]:
        """The VPCs."""
        return self._wanted | self._keeper.vpcs.keys()

    @property
    def whole(self) -> frozenset[int]:
        """Those of which nothing is to be learned: all of their routes fit."""
        return self.vnis - self.table.lacking

    def want(self, vnis: Iterable[int]) -> None:
        """Hold the routes of these VPCs from now on, and of no others."""
        self._wanted = frozenset(vnis)
        self._changed.set()

    def revisions(self, vnis: Iterable[int]) -> Routes:
        """`routes.REVISION` of these VPCs; 0: not known yet."""
        vpcs = self._keeper.vpcs
        held = [(vni, vpcs[vni].revision if vni in vpcs else 0) for vni in vnis]
        return np.array(held, REVISION)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._snapshots.run())
            tasks.create_task(self._apply())
            tasks.create_task(compare_forever(self._compare, self._due))
            await self._follow_wanted(tasks)

    async def _follow_wanted(self, tasks: asyncio.TaskGroup) -> None:
        following: dict[int, asyncio.Task[None]] = {}
        while True:
            await self._changed.wait()
            self._changed.clear()
            wanted = self._wanted
            for vni in (following.keys() | self._keeper.vpcs.keys()) - wanted:
                if vni in following:
                    following.pop(vni).cancel()
                await self._forget(vni)
            for vni in wanted - following.keys():
                following[vni] = tasks.create_task(self._follow(vni))

    async def _follow(self, vni: int) -> None:
        def begun() -> None:
            """What was published before this is for a snapshot to bring."""
            if vni not in self._keeper.vpcs:
                self._keeper.ask(vni)
            else:
                self._due.set()

        stream, subject = subjects.ROUTES_STREAM, subjects.routes(vni)
        await self._bus.follow(stream, subject, self._on_routes, last=False, begun=begun)

    async def _forget(self, vni: int) -> None:
        await self._keeper.forget(vni)
        self.table.lacking.discard(vni)
        self._ask_lacking()

    def _ask_lacking(self) -> None:
        """Read again what did not fit, if there is room by now."""
        if self.table.lacking and self.table.has_room():
            lacking, self.table.lacking = self.table.lacking, set()
            for vni in lacking:
                self._keeper.ask(vni)

    async def _on_routes(self, data: bytes) -> None:
        try:
            await self._deltas.put(read_delta(data))
        except (BadMessage, MalformedTable) as error:
            self.stats.bad_messages += 1
            log.warning("delta refused: %s", error)

    async def _apply(self) -> None:
        """By one task, which nothing interrupts: table and packet path stay equal."""
        while True:
            delta = await self._deltas.get()
            if delta.vni in self._wanted:
                await self._keeper.take(delta)

    async def _compare(self) -> None:
        vpcs = self._keeper.vpcs
        following = {
            vni: vpc.revision
            for vni, vpc in vpcs.items()
            if vpc.state is State.FOLLOWING and vni in self._wanted
        }
        pages = [await read_revisions(self._bus, vni - 1, 1) for vni in following]
        listed = np.concatenate([np.zeros(0, REVISION), *(page for page, _ in pages)])
        found = compare(following, frozenset(), listed[np.isin(listed["vni"], list(following))])
        for vni in found.ask:
            if vni in vpcs:
                self._keeper.ask(vni)
        await self._keeper.ask_behind(found.behind)
        self._ask_lacking()
