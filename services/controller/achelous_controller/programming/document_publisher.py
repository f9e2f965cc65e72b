"""Publishes documents of hosts and of the fleet: as the database stands, not as the outbox says.

The outbox and `repeat` only say which documents; each is built once for all changes known by then.
One publisher writes all of them, so that an older document never follows a newer one.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.programming import outbox
from achelous_controller.programming.documents import (
    read_fleet_document,
    read_host_ids,
    snapshot,
)
from achelous_controller.programming.held_ports import HeldPorts
from achelous_controller.programming.host_documents import Fresh, read_fresh, read_wanted
from achelous_controller.programming.metrics import Metrics
from achelous_controller.programming.route_publisher import IN_FLIGHT
from achelous_controller.programming.sql import autocommit
from achelous_shared import subjects
from achelous_shared.bus import Bus, BusError
from achelous_shared.messages import FleetDocument, HostChanges, HostDocument, encode

log = logging.getLogger(__name__)

_REST_S: Final = 0.025
"""At most, and as long as a step took: others have the database and this process meanwhile."""
_KINDS: Final = {FleetDocument: "fleet", HostDocument: "host", HostChanges: "host changes"}
_ENVELOPE_BYTES: Final = 4096  # of a message's payload, for its headers


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one step publishes. ``rows`` of the outbox: of hosts by id, of the fleet by None."""

    fleet: FleetDocument | None
    fresh: list[Fresh]
    gone: set[UUID]
    """Hosts that are no more: nobody is to be told."""
    rows: dict[int, UUID | None]

    @property
    def documents(self) -> set[UUID | None]:
        """All that it deals with."""
        fleet = {None} if self.fleet is not None else set()
        return fleet | self.gone | {fresh.message.host_id for fresh in self.fresh}


class DocumentPublisher:
    """One step takes a batch of documents to the stream."""

    def __init__(self, engine: AsyncEngine, bus: Bus, metrics: Metrics) -> None:
        self._engine = engine
        self._autocommit = autocommit(engine)
        self._bus = bus
        self._metrics = metrics
        self._in_flight = asyncio.Semaphore(IN_FLIGHT)
        self._again: set[UUID | None] = set()
        self._lost: set[UUID] = set()
        """Hosts of whom no whole document is on the stream."""
        self._held = HeldPorts()
        self.wanted = asyncio.Event()
        """Set when `repeat` has given `step` something to do."""

    def repeat(self, documents: Iterable[UUID | None]) -> None:
        """Publish these again: hosts by id, the fleet as None."""
        self._again.update(documents)
        if self._again:
            self.wanted.set()

    async def restore(self, present: frozenset[str]) -> None:
        """Publish again what is not among the subjects ``present``."""
        everything: list[UUID | None] = [None, *await read_host_ids(self._engine)]
        lost = [document for document in everything if _whole(document) not in present]
        if lost:
            log.info("documents: %d are not on the stream", len(lost))
        self._lost.update(document for document in lost if document is not None)
        self.repeat(lost)

    async def step(self) -> bool:
        """Publish what the outbox and `repeat` ask for; whether there was anything to do.

        What was published is not asked for again even when the rest was not; `BusError` then.
        """
        began = time.monotonic()
        again, self._again = self._again, set()
        done: set[UUID | None] = set()
        try:
            batch = await self._read(again)
            done |= batch.gone
            await self._publish_all(batch, done)
        finally:
            self._again |= again - done
        if rows := [row for row, document in batch.rows.items() if document in done]:
            async with self._autocommit.connect() as connection:
                await outbox.delete(connection, rows)
        if done != batch.documents:
            lost = len(batch.documents - done)
            raise BusError(f"{lost} of {len(batch.documents)} documents were not taken")
        # more changes of a host come together, and requests are answered meanwhile
        if batch.documents:
            await asyncio.sleep(min(time.monotonic() - began, _REST_S))
        return bool(batch.documents)

    async def _read(self, again: set[UUID | None]) -> _Batch:
        """What to publish now."""
        hosts = {host for host in again if host is not None}
        self._held.trim()
        self._held.lost(self._lost)
        self._lost.clear()
        async with snapshot(self._engine) as connection:
            wanted, of_fleet = await read_wanted(connection, hosts)
            fleet = None
            if of_fleet or None in again:
                fleet = await read_fleet_document(connection)
            fresh = await read_fresh(connection, wanted, self._held)
        gone = {host for host, want in wanted.items() if not want.revision}
        rows: dict[int, UUID | None] = dict.fromkeys(of_fleet)
        for host, want in wanted.items():
            rows |= dict.fromkeys((change.id for change in want.changes), host)
        return _Batch(fleet, fresh, gone, rows)

    async def _publish_all(self, batch: _Batch, done: set[UUID | None]) -> None:
        async with asyncio.TaskGroup() as group:
            if batch.fleet is not None:
                group.create_task(self._publish(subjects.FLEET, batch.fleet, None, done))
            for fresh in batch.fresh:
                group.create_task(self._tell(fresh, done))

    async def _tell(self, fresh: Fresh, done: set[UUID | None]) -> None:
        message = fresh.message
        host = message.host_id
        whole = isinstance(message, HostDocument)
        subject = subjects.host(host) if whole else subjects.host_changes(host)
        if await self._publish(subject, message, host, done):
            fresh.published()

    async def _publish(
        self,
        subject: str,
        message: FleetDocument | HostDocument | HostChanges,
        document: UUID | None,
        done: set[UUID | None],
    ) -> bool:
        """Whether it is on the stream."""
        data = encode(message)
        if len(data) + _ENVELOPE_BYTES > self._bus.max_payload:
            log.error(
                "%s: the document has %d bytes, the bus takes %d: this host has too many ports",
                subject, len(data), self._bus.max_payload,
            )  # fmt: skip
            self._metrics.too_large.inc()
            done.add(document)  # trying again would not help, and would hold up all others
            return False
        async with self._in_flight:
            try:
                await self._bus.publish_stream(
                    subjects.HOSTS_STREAM,
                    subject,
                    data,
                    message_id=f"{subject}-{message.revision}-{secrets.token_hex(8)}",
                )
            except BusError as error:
                log.warning("%s waits: %s", subject, error)
                return False
        self._metrics.published.labels(_KINDS[type(message)]).inc()
        done.add(document)
        return True


def _whole(document: UUID | None) -> str:
    return subjects.host(document) if document else subjects.FLEET
