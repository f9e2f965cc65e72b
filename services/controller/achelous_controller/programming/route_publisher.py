"""Publishes the route deltas of the outbox: in order within a VPC, many VPCs at once."""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from achelous_controller.domain.pending import unpack_cohorts
from achelous_controller.programming import outbox
from achelous_controller.programming.metrics import Metrics
from achelous_controller.programming.outbox import RoutesRow
from achelous_controller.programming.progress import Progress
from achelous_shared import subjects
from achelous_shared.bus import Bus, BusError
from achelous_shared.messages import RouteDelta, encode
from achelous_shared.routes import MAX_DELTA_ENTRIES, ROUTE

log = logging.getLogger(__name__)

IN_FLIGHT: Final = 64
"""Messages on their way to the bus at once."""

_MAX_BYTES: Final = MAX_DELTA_ENTRIES * ROUTE.itemsize


class RoutePublisher:
    """One step takes a batch of deltas from the outbox to the stream.

    ``connection``: its own. What was published leaves the outbox with the next step's query.
    """

    def __init__(self, connection: Any, bus: Bus, metrics: Metrics, progress: Progress) -> None:
        self._connection = connection
        self._bus = bus
        self._metrics = metrics
        self._progress = progress
        self._in_flight = asyncio.Semaphore(IN_FLIGHT)
        self._published: list[int] = []

    async def step(self) -> bool:
        """Publish the oldest batch; whether there was anything to do.

        What was published is not published again even when the rest was not; `BusError` then.
        """
        rows = await outbox.take_routes(self._connection, self._published)
        self._published = []
        by_vni: dict[int, list[RoutesRow]] = {}
        for row in rows:
            by_vni.setdefault(row.vni, []).append(row)
        async with asyncio.TaskGroup() as group:
            for deltas in by_vni.values():
                group.create_task(self._publish(deltas))
        if len(self._published) < len(rows):
            left = len(rows) - len(self._published)
            raise BusError(f"{left} of {len(rows)} route deltas were not taken")
        return bool(rows)

    async def _publish(self, deltas: Iterable[RoutesRow]) -> None:
        """The deltas of one VPC, up to the first that the bus does not take."""
        for rows in joined(deltas):
            first, last = rows[0], rows[-1]
            message = RouteDelta(
                vni=first.vni,
                base=first.base,
                revision=last.revision,
                entries=b"".join([row.entries for row in rows]),
            )
            async with self._in_flight:
                try:
                    await self._bus.publish_stream(
                        subjects.ROUTES_STREAM,
                        subjects.routes(first.vni),
                        encode(message),
                        # of its revision there is one that the stream took after all before it
                        message_id=f"{last.vni}-{last.revision}",
                    )
                except BusError as error:
                    log.warning("routes of VNI %d wait: %s", first.vni, error)
                    return
            self._metrics.published.labels("routes").inc()
            self._done(rows)

    def _done(self, rows: Sequence[RoutesRow]) -> None:
        at = time.time()
        for row in rows:
            self._published.append(row.id)
            if row.cohorts is not None:
                self._progress.published(unpack_cohorts(row.cohorts), at)
            elif row.unnoted:
                self._progress.recount()


def joined(deltas: Iterable[RoutesRow]) -> Iterator[list[RoutesRow]]:
    """Deltas of one VPC that go together: each joins on to the one before, and all fit a message.

    A message costs every gateway as much as hundreds of entries.
    """
    some: list[RoutesRow] = []
    for row in deltas:
        size = sum(len(each.entries) for each in some) + len(row.entries)
        if some and (row.base != some[-1].revision or size > _MAX_BYTES):
            yield some
            some = []
        some.append(row)
    if some:
        yield some
