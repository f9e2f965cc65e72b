"""Publishes documents of hosts and of the fleet: as the database stands, not as the outbox says.

The outbox and `repeat` only say which documents; each is built once for all changes known by then.
One publisher writes all of them, so that an older document never follows a newer one.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.programming.documents import read_fleet_document, read_host_ids
from achelous_controller.programming.held_ports import HeldPorts
from achelous_controller.programming.host_documents import Fresh, Wanted, read_fresh, wanted_of
from achelous_controller.programming.metrics import Metrics
from achelous_controller.programming.outbox import Rows
from achelous_shared import subjects
from achelous_shared.bus import Bus
from achelous_shared.messages import FleetDocument, HostDocument, encode
from achelous_shared.stream_writer import Append, StreamWriter

log = logging.getLogger(__name__)

_AT_ONCE_BYTES: Final = 4 * 1024 * 1024
_ENVELOPE_BYTES: Final = 4096  # of a message's payload, for its headers


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents to publish, and the rows of the outbox that they cover: of hosts by id, of the
    fleet by None."""

    fleet: FleetDocument | None
    fresh: list[Fresh]
    gone: set[UUID]
    """Hosts that are no more: nobody is to be told."""
    rows: dict[UUID | None, list[int]]
    again: set[UUID | None]
    """What `repeat` asked for."""
    all: bool
    """Whether it has all that is to be published as of its snapshot."""

    def __bool__(self) -> bool:
        """Whether it deals with anything."""
        return bool(self.fleet or self.fresh or self.gone)


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A document as it goes to its subject."""

    of: UUID | None
    subject: str
    data: bytes
    kind: str
    fresh: Fresh | None


class DocumentPublisher:
    """Takes documents to the stream, in batches: `read` one, then `publish` it."""

    def __init__(
        self, engine: AsyncEngine, bus: Bus, writer: StreamWriter, metrics: Metrics
    ) -> None:
        self._engine = engine
        self._bus = bus
        self._writer = writer
        self._metrics = metrics
        self._again: set[UUID | None] = set()
        self._lost: set[UUID] = set()
        """Hosts of whom no whole document is on the stream."""
        self._held = HeldPorts()
        self.wanted = asyncio.Event()
        """Set when `repeat` has given the next batch something."""

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

    async def read(self, connection: Any, rows: Rows) -> Batch:
        """What these rows and `repeat` ask for; ``connection`` as of `host_documents.wanted_of`."""
        again, self._again = self._again, set()
        self._held.trim()
        self._held.lost(self._lost)
        self._lost.clear()
        hosts = {host for host in again if host is not None}
        wanted = await wanted_of(connection, rows.documents, hosts)
        of_fleet = [row.id for row in rows.documents if row.host_id is None]
        fleet = None
        if of_fleet or None in again:
            fleet = await read_fleet_document(connection)
        named = rows.ports if not hosts else None
        fresh = await read_fresh(connection, wanted, self._held, named)
        gone = {host for host, want in wanted.items() if not want.revision}
        complete = len(fresh) + len(gone) == len(wanted)
        return Batch(fleet, fresh, gone, _rows_of(wanted) | {None: of_fleet}, again, complete)

    async def publish(self, batch: Batch) -> tuple[list[int], int]:
        """The rows of the outbox that are done with, and how many documents were not taken.

        Those are published again.
        """
        done: set[UUID | None] = set(batch.gone)
        left = 0
        for some in _together(batch):
            fitting: list[_Encoded] = []
            for one in some:
                if self._fits(one):
                    fitting.append(one)
                else:
                    done.add(one.of)
            taken = await self._writer.append([Append(one.subject, one.data) for one in fitting])
            published = [one for one, is_taken in zip(fitting, taken, strict=True) if is_taken]
            self._published(published)
            done.update(one.of for one in published)
            left += len(fitting) - len(published)
        self._again |= batch.again - done
        return [
            row for document, rows in batch.rows.items() if document in done for row in rows
        ], left

    def _published(self, documents: Sequence[_Encoded]) -> None:
        for one in documents:
            if one.fresh is not None:
                one.fresh.published()
        for kind, count in Counter(one.kind for one in documents).items():
            self._metrics.published.labels(kind).inc(count)

    def _fits(self, document: _Encoded) -> bool:
        """Trying one again that does not would not help, and would hold up all others."""
        size = len(document.data)
        if size + _ENVELOPE_BYTES <= self._bus.max_payload:
            return True
        log.error(
            "%s: the document has %d bytes, the bus takes %d: this host has too many ports",
            document.subject, size, self._bus.max_payload,
        )  # fmt: skip
        self._metrics.too_large.inc()
        return False


def _encoded(batch: Batch) -> Iterator[_Encoded]:
    if batch.fleet is not None:
        yield _Encoded(None, subjects.FLEET, encode(batch.fleet), "fleet", None)
    for fresh in batch.fresh:
        message = fresh.message
        host, data = message.host_id, encode(message)
        if isinstance(message, HostDocument):
            yield _Encoded(host, subjects.host(host), data, "host", fresh)
        else:
            yield _Encoded(host, subjects.host_changes(host), data, "host changes", fresh)


def _together(batch: Batch) -> Iterator[list[_Encoded]]:
    """All documents, about `_AT_ONCE_BYTES` at once."""
    some: list[_Encoded] = []
    size = 0
    for document in _encoded(batch):
        some.append(document)
        size += len(document.data)
        if size > _AT_ONCE_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


def _rows_of(wanted: dict[UUID, Wanted]) -> dict[UUID | None, list[int]]:
    return {host: [change.id for change in want.changes] for host, want in wanted.items()}


def _whole(document: UUID | None) -> str:
    return subjects.host(document) if document else subjects.FLEET
