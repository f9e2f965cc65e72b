"""Hosts that only say that they run what they were told: the rest of a large fleet.

They make the load of a large VPC bearable on one machine: their guests have routes and documents,
and no agent applies them. What is measured is never measured on them.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

import msgspec

from achelous_shared import subjects
from achelous_shared.bus import Bus
from achelous_shared.messages import HostApplied, encode
from achelous_shared.nats_wire import Received
from achelous_shared.responder import Outlet

_EVERY_S: Final = 2.0
_REPEAT_S: Final = 60.0
_APPLY_S: Final = 0.004
"""From a document until its report, some hosts' in one write: an agent takes a few ms, too."""


class _Head(msgspec.Struct):
    """As much of a host's document, or of what changed in it, as is read here."""

    host_id: UUID
    revision: int


class ParkedHosts:
    """Reports the revision of each document as soon as it is published, and for a while after.

    A host to which nothing happens is silent: the reports that a real one makes each second would
    be most of the bus's work here.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._revisions: dict[UUID, int] = {}
        self._subjects: dict[UUID, bytes] = {}
        self._told_at: dict[UUID, float] = {}
        """When a document last came, of those that repeat their report still."""
        self._decoder = msgspec.msgpack.Decoder(_Head)
        self._outlet = Outlet()
        self._due: dict[UUID, None] = {}
        """Hosts that are to report."""

    def add(self, hosts: Iterable[UUID]) -> None:
        """Speak for these hosts too."""
        for host_id in hosts:
            self._revisions[host_id] = 0
            self._subjects[host_id] = subjects.host_applied(host_id).encode()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for documents in (subjects.ALL_HOSTS, subjects.ALL_HOST_CHANGES):
                tasks.create_task(self._bus.listen_batches(documents, self._on_documents))
            tasks.create_task(
                self._bus.react(
                    subjects.REPORT,
                    self._on_commands,
                    max_payload=self._bus.max_payload,
                    outlet=self._outlet,
                )
            )
            tasks.create_task(self._repeat())

    def _on_documents(self, documents: Sequence[bytes]) -> None:
        """Have the hosts report that got some."""
        for document in documents:
            if (host_id := self._told(document)) is not None:
                self._report_soon(host_id)

    def _report_soon(self, host_id: UUID) -> None:
        if not self._due:
            asyncio.get_running_loop().call_later(_APPLY_S, self._report_due)
        self._due[host_id] = None

    def _report_due(self) -> None:
        due, self._due = self._due, {}
        self._outlet.publish([self._report(host_id) for host_id in due])

    def _told(self, document: bytes) -> UUID | None:
        """Whose document this is, if it is news to one of these hosts."""
        head = self._decoder.decode(document)
        if self._revisions.get(head.host_id, head.revision + 1) > head.revision:
            return None
        self._revisions[head.host_id] = head.revision
        self._told_at[head.host_id] = time.monotonic()
        return head.host_id

    def _on_commands(self, _: Received) -> list[tuple[bytes, bytes]]:
        return [self._report(host_id) for host_id in self._revisions]

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            begun = time.monotonic() - _REPEAT_S
            self._told_at = {host: at for host, at in self._told_at.items() if at > begun}
            self._outlet.publish([self._report(host_id) for host_id in self._told_at])

    def _report(self, host_id: UUID) -> tuple[bytes, bytes]:
        """Its subject and what is said there."""
        report = HostApplied(
            host_id=host_id,
            revision=self._revisions[host_id],
            fleet_revision=0,
            waiting=(),
            failed={},
            at=time.time(),
        )
        return self._subjects[host_id], encode(report)
