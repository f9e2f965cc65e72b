"""Hosts that only say that they run what they were told: the rest of a large fleet.

They make the load of a large VPC bearable on one machine: their guests have routes and documents,
and no agent applies them. What is measured is never measured on them.
"""

import asyncio
import time
from collections.abc import Iterable
from typing import Final
from uuid import UUID

import msgspec

from achelous_shared import subjects
from achelous_shared.bus import Bus, BusError
from achelous_shared.messages import HostApplied, encode
from achelous_shared.nats_wire import Received

_EVERY_S: Final = 2.0
_REPEAT_S: Final = 60.0


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

    def add(self, hosts: Iterable[UUID]) -> None:
        """Speak for these hosts too."""
        for host_id in hosts:
            self._revisions[host_id] = 0
            self._subjects[host_id] = subjects.host_applied(host_id).encode()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for documents in (subjects.ALL_HOSTS, subjects.ALL_HOST_CHANGES):
                tasks.create_task(
                    self._bus.react(
                        documents, self._on_documents, max_payload=self._bus.max_payload
                    )
                )
            tasks.create_task(self._bus.listen(subjects.REPORT, self._on_command))
            tasks.create_task(self._repeat())

    def _on_documents(self, received: Received) -> list[tuple[bytes, bytes]]:
        """The reports upon documents, one for each host that got some."""
        told = dict.fromkeys(self._told(document) for document in received.payloads)
        return [self._report(host_id) for host_id in told if host_id is not None]

    def _told(self, document: bytes) -> UUID | None:
        """Whose document this is, if it is news to one of these hosts."""
        head = self._decoder.decode(document)
        if self._revisions.get(head.host_id, head.revision + 1) > head.revision:
            return None
        self._revisions[head.host_id] = head.revision
        self._told_at[head.host_id] = time.monotonic()
        return head.host_id

    async def _on_command(self, _: bytes) -> None:
        await self._publish(list(self._revisions))

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            begun = time.monotonic() - _REPEAT_S
            self._told_at = {host: at for host, at in self._told_at.items() if at > begun}
            await self._publish(list(self._told_at))

    async def _publish(self, hosts: Iterable[UUID]) -> None:
        for host_id in hosts:
            subject, report = self._report(host_id)
            try:
                await self._bus.publish_bytes(subject.decode(), report)
            except BusError:
                return  # the next ones say it

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
