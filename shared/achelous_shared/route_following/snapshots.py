"""Reads the tables of VPCs whole, a bounded number of them at once."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

import numpy as np

from achelous_shared import messages, subjects
from achelous_shared.bus import Bus, BusError
from achelous_shared.messages import BadMessage, SnapshotReply, SnapshotRequest
from achelous_shared.route_following.keeper import Forgotten, Keeper
from achelous_shared.route_following.pages import Page, Range
from achelous_shared.route_following.plan import Vpc
from achelous_shared.route_following.stats import FollowStats
from achelous_shared.route_following.table import TableFull
from achelous_shared.routes import MAX_PAGE_ENTRIES, MalformedTable

log = logging.getLogger(__name__)

_AT_ONCE: Final = 4
_RANGES: Final = 3
"""Of one VPC read at once: the database reads some while we take another."""
_TIMEOUT_S: Final = 5.0
_RETRY_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)


class SnapshotFailed(Exception):
    """A snapshot could not be read to its end; to be tried again."""


class Snapshots:
    """Reads what `Keeper.wanted` asks for, and goes on until it has it."""

    def __init__(self, bus: Bus, keeper: Keeper, stats: FollowStats) -> None:
        self._bus = bus
        self._keeper = keeper
        self._stats = stats
        self._failures: dict[int, int] = {}

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(self._worker())

    async def _worker(self) -> None:
        while True:
            vni = await self._keeper.wanted.get()
            vpc = self._keeper.begin(vni)
            if vpc is not None:
                await self._read_or_retry(vpc)
            self._keeper.wanted.task_done()  # after what asks again: join() waits for that too

    async def _read_or_retry(self, vpc: Vpc) -> None:
        try:
            await self._read(vpc)
            self._failures.pop(vpc.vni, None)
        except Forgotten as error:
            log.info("%s", error)
        except (BusError, BadMessage, MalformedTable, SnapshotFailed, TableFull) as error:
            self._stats.snapshot_failures += 1
            self._stats.table_full += isinstance(error, TableFull)
            log.warning("snapshot of VPC %d, to be tried again: %s", vpc.vni, error)
            failures = self._failures.get(vpc.vni, 0)
            self._failures[vpc.vni] = failures + 1
            await asyncio.sleep(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
            self._keeper.retry(vpc)

    async def _read(self, vpc: Vpc) -> None:
        """One page, which says where the VPC ends, and then several ranges of the rest at once.

        A range's next page is asked for before the one that came is merged.
        """
        first = await self._page(vpc.vni, Range())
        revision = first.revision
        rows = [await self._keeper.merge(vpc, revision, first.entries)]
        asked = self._ask(vpc.vni, first.rest(_RANGES))
        try:
            while asked:
                done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    asked.discard(task)
                    page = task.result()
                    if page.revision < revision:
                        raise SnapshotFailed(f"it went back from {revision} to {page.revision}")
                    asked |= self._ask(vpc.vni, page.rest(1))
                    rows.append(await self._keeper.merge(vpc, page.revision, page.entries))
        finally:
            for task in asked:
                task.cancel()
        await self._keeper.finish(vpc, revision, np.concatenate(rows))

    def _ask(self, vni: int, ranges: Iterable[Range]) -> set[asyncio.Task[Page]]:
        return {asyncio.create_task(self._page(vni, part)) for part in ranges}

    async def _page(self, vni: int, part: Range) -> Page:
        request = SnapshotRequest(
            vni=vni, after=part.after, until=part.until, limit=MAX_PAGE_ENTRIES
        )
        data = await self._bus.request(
            subjects.SNAPSHOT_ROUTES, messages.encode(request), timeout=_TIMEOUT_S
        )
        reply = messages.decode(data, SnapshotReply)
        if reply.error is not None:
            raise SnapshotFailed(f"the controller says: {reply.error}")
        if reply.vni != vni:
            raise SnapshotFailed(f"the reply is about VPC {reply.vni}")
        return Page.of(part, reply)
