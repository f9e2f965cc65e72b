"""Reads the tables of VPCs whole, a bounded number of them at once."""

import asyncio
import logging
from typing import Final

import numpy as np

from achelous_gateway.keeper import Keeper
from achelous_gateway.plan import Vpc, check_chunk
from achelous_gateway.stats import Stats
from achelous_gateway.table import TableFull
from achelous_shared import messages, subjects
from achelous_shared.bus import Bus, BusError
from achelous_shared.messages import BadMessage, SnapshotReply, SnapshotRequest
from achelous_shared.routes import MAX_DELTA_ENTRIES, MalformedTable, unpack

log = logging.getLogger(__name__)

_AT_ONCE: Final = 4
_TIMEOUT_S: Final = 5.0
_RETRY_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)


class SnapshotFailed(Exception):
    """A snapshot could not be read to its end; to be tried again."""


class Snapshots:
    """Reads what `Keeper.wanted` asks for, and goes on until it has it."""

    def __init__(self, bus: Bus, keeper: Keeper, stats: Stats) -> None:
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
        except (BusError, BadMessage, MalformedTable, SnapshotFailed, TableFull) as error:
            self._stats.snapshot_failures += 1
            self._stats.table_full += isinstance(error, TableFull)
            log.warning("snapshot of VPC %d, to be tried again: %s", vpc.vni, error)
            failures = self._failures.get(vpc.vni, 0)
            self._failures[vpc.vni] = failures + 1
            await asyncio.sleep(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
            self._keeper.retry(vpc)

    async def _read(self, vpc: Vpc) -> None:
        first: int | None = None
        after = b""
        rows = []
        done = False
        while not done:
            reply = await self._chunk(vpc.vni, after)
            first = reply.revision if first is None else first
            if reply.revision < first:
                raise SnapshotFailed(f"its revision went back from {first} to {reply.revision}")
            entries = unpack(reply.entries)
            check_chunk(after, entries, reply.done)
            rows.append(await self._keeper.merge(vpc, entries))
            after = entries["ip"][-1].tobytes() if len(entries) else after
            done = reply.done
        await self._keeper.finish(vpc, first or 0, np.concatenate(rows))

    async def _chunk(self, vni: int, after: bytes) -> SnapshotReply:
        request = SnapshotRequest(vni=vni, after=after, limit=MAX_DELTA_ENTRIES)
        data = await self._bus.request(
            subjects.SNAPSHOT_ROUTES, messages.encode(request), timeout=_TIMEOUT_S
        )
        reply = messages.decode(data, SnapshotReply)
        if reply.error is not None:
            raise SnapshotFailed(f"the controller says: {reply.error}")
        if reply.vni != vni:
            raise SnapshotFailed(f"the reply is about VPC {reply.vni}")
        return reply
