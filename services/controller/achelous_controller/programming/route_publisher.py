"""Publishes the route deltas of the outbox: in order within a VPC, many VPCs at once."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import numpy as np
from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.programming import outbox, records
from achelous_controller.programming.metrics import Metrics
from achelous_controller.programming.outbox import RoutesRow
from achelous_controller.programming.pending import Pending
from achelous_controller.programming.sql import autocommit
from achelous_shared import subjects
from achelous_shared.bus import Bus, BusError
from achelous_shared.messages import RouteDelta, encode
from achelous_shared.routes import Routes, ip_of, unpack

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
        self._engine = engine
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
        vnis: list[int] = []
        ips: list[IPv4Address | IPv6Address] = []
        for row in done:
            addresses = _addresses(unpack(row.entries))
            ips += addresses
            vnis += [row.vni] * len(addresses)
        async with self._engine.begin() as connection:
            await outbox.delete(connection, [row.id for row in done])
            pending = await records.stamp_published(connection, vnis, ips, at)
        self._published(pending)


def _addresses(entries: Routes) -> list[IPv4Address | IPv6Address]:
    mapped = np.frombuffer(b"\0" * 10 + b"\xff\xff", np.uint8)
    if (entries["ip"][:, :12] == mapped).all():
        packed = np.ascontiguousarray(entries["ip"][:, 12:]).view(">u4")[:, 0]
        return [IPv4Address(number) for number in packed.tolist()]
    return [ip_of(address.tobytes()) for address in entries["ip"]]
