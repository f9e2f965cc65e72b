"""Publishes documents of hosts and of the fleet: as the database stands, not as the outbox says.

The outbox and `repeat` only say which documents; each is built once for all changes known by then.
One publisher writes all of them, so that an older document never follows a newer one.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Iterable
from itertools import islice
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.programming import outbox
from achelous_controller.programming.documents import read_fleet_document, read_host_ids
from achelous_controller.programming.held_ports import HeldPorts
from achelous_controller.programming.host_documents import read_fresh
from achelous_controller.programming.metrics import Metrics
from achelous_controller.programming.route_publisher import IN_FLIGHT
from achelous_controller.programming.sql import autocommit
from achelous_shared import subjects
from achelous_shared.bus import Bus, BusError
from achelous_shared.messages import Message, encode

log = logging.getLogger(__name__)

_HOSTS_AT_ONCE: Final = 64
_REST: Final = 1.0
"""Of the time that a step took: as long as that, others have the database and this process."""
_ENVELOPE_BYTES: Final = 4096  # of a message's payload, for its headers


class DocumentPublisher:
    """One step takes a batch of documents to the stream."""

    def __init__(self, engine: AsyncEngine, bus: Bus, metrics: Metrics) -> None:
        self._engine = engine
        self._autocommit = autocommit(engine)
        self._bus = bus
        self._metrics = metrics
        self._in_flight = asyncio.Semaphore(IN_FLIGHT)
        self._again: set[UUID | None] = set()
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
        lost = [document for document in everything if _subject(document) not in present]
        if lost:
            log.info("documents: %d are not on the stream", len(lost))
        self.repeat(lost)

    async def step(self) -> bool:
        """Publish what the outbox and `repeat` ask for; whether there was anything to do.

        What was published is not asked for again even when the rest was not; `BusError` then.
        """
        began = time.monotonic()
        async with self._autocommit.connect() as connection:
            rows = await outbox.read_documents(connection)
        again, self._again = self._again, set()
        wanted = {row.host_id for row in rows} | again
        done: set[UUID | None] = set()
        covered = {row.id: row.host_id for row in rows}
        try:
            covered |= await self._publish_all(wanted, done)
        finally:
            self._again |= again - done
        if published := [row for row, host in covered.items() if host in done]:
            async with self._autocommit.connect() as connection:
                await outbox.delete(connection, published)
        if done != wanted:
            raise BusError(f"{len(wanted - done)} of {len(wanted)} documents were not taken")
        # more changes of a host come together, and requests are answered meanwhile
        await asyncio.sleep(_REST * (time.monotonic() - began) if wanted else 0)
        return bool(wanted)

    async def _publish_all(
        self, wanted: set[UUID | None], done: set[UUID | None]
    ) -> dict[int, UUID]:
        """Returns the rows of the outbox that the documents cover, with the host of each."""
        covered: dict[int, UUID] = {}
        if None in wanted:
            fleet = await read_fleet_document(self._engine)
            await self._publish(None, fleet, fleet.revision, done)
        hosts = iter([host for host in wanted if host is not None])
        while chunk := list(islice(hosts, _HOSTS_AT_ONCE)):
            found = await read_fresh(self._engine, chunk, self._held)
            async with asyncio.TaskGroup() as group:
                for fresh in found:
                    host, revision = fresh.document.host_id, fresh.document.revision
                    covered |= dict.fromkeys(fresh.rows, host)
                    group.create_task(self._publish(host, fresh.document, revision, done))
            done |= set(chunk) - {fresh.document.host_id for fresh in found}  # hosts removed
        return covered

    async def _publish(
        self, host: UUID | None, document: Message, revision: int, done: set[UUID | None]
    ) -> None:
        data = encode(document)
        subject = _subject(host)
        if len(data) + _ENVELOPE_BYTES > self._bus.max_payload:
            log.error(
                "%s: the document has %d bytes, the bus takes %d: this host has too many ports",
                subject, len(data), self._bus.max_payload,
            )  # fmt: skip
            self._metrics.too_large.inc()
            done.add(host)  # trying again would not help, and would hold up all others
            return
        async with self._in_flight:
            try:
                await self._bus.publish_stream(
                    subjects.HOSTS_STREAM,
                    subject,
                    data,
                    message_id=f"{subject}-{revision}-{secrets.token_hex(8)}",
                )
            except BusError as error:
                log.warning("%s waits: %s", subject, error)
                return
        self._metrics.published.labels("host" if host else "fleet").inc()
        done.add(host)


def _subject(document: UUID | None) -> str:
    return subjects.host(document) if document else subjects.FLEET
