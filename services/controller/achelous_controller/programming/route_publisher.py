"""Publishes the route deltas of the outbox: in order within a VPC, many VPCs at once."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.domain.pending import unpack_cohorts
from achelous_controller.programming import outbox
from achelous_controller.programming.metrics import Metrics
from achelous_controller.programming.outbox import RoutesRow
from achelous_controller.programming.pending import Pending, members
from achelous_controller.programming.sql import autocommit
from achelous_shared import subjects
from achelous_shared.bus import Bus, BusError
from achelous_shared.messages import RouteDelta, encode

log = logging.getLogger(__name__)

IN_FLIGHT: Final = 64
"""Messages on their way to the bus at once."""

Published = Callable[[Sequence[Pending]], None]
"""Takes the pending instances whose routes were just published."""


class RoutePublisher:
    """One step takes a batch of deltas from the outbox to the stream."""

    def __init__(
        self, engine: AsyncEngine, bus: Bus, metrics: Metrics, published: Published
    ) -> None:
        self._autocommit = autocommit(engine)
        self._bus = bus
        self._metrics = metrics
        self._published = published
        self._in_flight = asyncio.Semaphore(IN_FLIGHT)

    async def step(self) -> bool:
        """Publish the oldest batch; whether there was anything to do.

        What was published is taken from the outbox even when the rest was not; `BusError` then.
        """
        async with self._autocommit.connect() as connection:
            rows = await outbox.read_routes(connection)
        by_vni: dict[int, list[RoutesRow]] = {}
        for row in rows:
            by_vni.setdefault(row.vni, []).append(row)
        done: list[RoutesRow] = []
        async with asyncio.TaskGroup() as group:
            for deltas in by_vni.values():
                group.create_task(self._publish(deltas, done))
        if done:
            await self._finish(done)
        if len(done) < len(rows):
            raise BusError(f"{len(rows) - len(done)} of {len(rows)} route deltas were not taken")
        return bool(rows)

    async def _publish(self, deltas: Iterable[RoutesRow], done: list[RoutesRow]) -> None:
        """The deltas of one VPC, up to the first that the bus does not take."""
        for row in deltas:
            message = RouteDelta(
                vni=row.vni, base=row.base, revision=row.revision, entries=row.entries
            )
            async with self._in_flight:
                try:
                    await self._bus.publish_stream(
                        subjects.ROUTES_STREAM,
                        subjects.routes(row.vni),
                        encode(message),
                        message_id=f"{row.vni}-{row.revision}",
                    )
                except BusError as error:
                    log.warning("routes of VNI %d wait: %s", row.vni, error)
                    return
            self._metrics.published.labels("routes").inc()
            done.append(row)

    async def _finish(self, done: Sequence[RoutesRow]) -> None:
        at = time.time()
        pending = [
            instance
            for row in done
            if row.cohorts
            for cohort in unpack_cohorts(row.cohorts)
            for instance in members(cohort)
        ]
        for instance in pending:
            instance.published_at = at
        self._published(pending)
        async with self._autocommit.connect() as connection:
            await outbox.delete(connection, [row.id for row in done])
