"""Gateways and hosts for tests of programming: they follow and report as the real ones do, unless
they are told to misbehave.
"""

import asyncio
import time
from collections import defaultdict
from uuid import UUID

import numpy as np

from achelous_shared import messages, subjects
from achelous_shared.bus import Bus, BusError
from achelous_shared.host_documents import HostReader
from achelous_shared.messages import (
    FleetDocument,
    GatewayApplied,
    HostApplied,
    HostDocument,
    RouteDelta,
    SnapshotReply,
    SnapshotRequest,
)
from achelous_shared.routes import REVISION, RouteOp, pack, unpack

Table = dict[bytes, tuple[int, bytes, int]]
"""Address -> (VTEP, MAC, revision)."""

_HEARTBEAT_S = 0.5


def apply(table: Table, packed: bytes) -> None:
    """What a gateway does with the entries of a delta or of a page: never back in revision."""
    for entry in unpack(packed):
        ip, revision = entry["ip"].tobytes(), int(entry["revision"])
        if ip in table and table[ip][2] > revision:
            continue
        if entry["op"] == RouteOp.UPSERT:
            table[ip] = (int(entry["vtep"]), entry["mac"].tobytes(), revision)
        else:
            table.pop(ip, None)


class _Reporter:
    """Tells the controller at once what changed, and each half second."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.mute = False
        """Whether it neither reports nor answers."""
        self._moved = asyncio.Event()

    async def report(self) -> None:
        raise NotImplementedError

    def moved(self) -> None:
        self._moved.set()

    async def run_reports(self) -> None:
        while True:
            self._moved.clear()
            if not self.mute and self.bus.connected:
                try:
                    await self.report()
                except BusError:
                    continue  # the next one tells the same
            try:
                async with asyncio.timeout(_HEARTBEAT_S):
                    await self._moved.wait()
            except TimeoutError:
                pass

    async def on_command(self, _: bytes) -> None:
        self.moved()


class FakeGateway(_Reporter):
    """Holds the tables of all VPCs."""

    def __init__(self, gateway_id: UUID, name: str, bus: Bus) -> None:
        super().__init__(bus)
        self.id, self.name = gateway_id, name
        self.tables: dict[int, Table] = defaultdict(dict)
        self.revisions: dict[int, int] = defaultdict(int)
        self.received: dict[int, list[RouteDelta]] = defaultdict(list)
        """Deltas with entries, as the stream gave them."""
        self.following = asyncio.Event()
        """Set when nothing that is published from now on is missed."""
        self.snapshots = 0
        self.lose = 0
        """The number of deltas with entries that it is yet to lose."""
        self.deaf = False
        """Whether it loses everything."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(
                self.bus.follow(
                    subjects.ROUTES_STREAM,
                    subjects.ALL_ROUTES,
                    self._on_delta,
                    last=False,
                    begun=self.following.set,
                )
            )
            group.create_task(self.bus.listen(subjects.REPORT, self.on_command))
            group.create_task(self.run_reports())

    async def report(self) -> None:
        revisions = np.array(list(self.revisions.items()), REVISION)
        applied = GatewayApplied(
            gateway_id=self.id, full=True, serving=True, revisions=pack(revisions), at=time.time()
        )
        await self.bus.publish(subjects.gateway_applied(self.id), applied)

    async def _on_delta(self, data: bytes) -> None:
        delta = messages.decode(data, RouteDelta)
        if self.deaf:
            return
        if delta.entries:
            if self.lose:
                self.lose -= 1
                return
            self.received[delta.vni].append(delta)
        if delta.base > self.revisions[delta.vni]:
            await self._read(delta.vni)
        elif delta.revision > self.revisions[delta.vni]:
            apply(self.tables[delta.vni], delta.entries)
            self.revisions[delta.vni] = delta.revision
        self.moved()

    async def _read(self, vni: int) -> None:
        """Fill a gap. The deltas that come meanwhile are handled after it."""
        self.snapshots += 1
        pages = [await self._page(vni, b"")]
        while not pages[-1].done:
            pages.append(await self._page(vni, unpack(pages[-1].entries)["ip"][-1].tobytes()))
        table: Table = {}
        for page in pages:
            apply(table, page.entries)
        self.tables[vni], self.revisions[vni] = table, pages[0].revision

    async def _page(self, vni: int, after: bytes) -> SnapshotReply:
        request = messages.encode(SnapshotRequest(vni=vni, after=after, limit=8192))
        data = await self.bus.request(subjects.SNAPSHOT_ROUTES, request, timeout=5)
        reply = messages.decode(data, SnapshotReply)
        assert reply.error is None, reply.error
        return reply


class FakeHost(_Reporter):
    """Runs its document; its devices appear and work unless told otherwise."""

    def __init__(self, host_id: UUID, name: str, bus: Bus) -> None:
        super().__init__(bus)
        self.id, self.name = host_id, name
        self._reader = HostReader()
        self._begin = asyncio.Event()
        self.document: HostDocument | None = None
        self.fleet: FleetDocument | None = None
        self.devices = True
        """Whether the devices of its vNICs are there."""
        self.up = 0
        """If they are not: of so many of its vNICs they are all the same."""
        self.failing: str | None = None
        """Why none of its vNICs can run."""
        self.lose = 0
        """The number of documents that it is yet to lose."""

    async def run(self) -> None:
        stream = subjects.HOSTS_STREAM
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self.bus.follow(stream, subjects.FLEET, self._on_fleet, last=True))
            group.create_task(self.bus.listen(subjects.REPORT, self.on_command))
            group.create_task(self.run_reports())

    def ports(self) -> int:
        """The number of its vNICs."""
        return len(self.document.ports) if self.document else 0

    def begin_again(self) -> None:
        """Forget its document, and follow the stream as a new agent does."""
        self._reader, self.document = HostReader(), None
        self._begin.set()

    async def _follow(self) -> None:
        subject = subjects.all_of_host(self.id)
        while True:
            self._begin.clear()
            following = asyncio.create_task(
                self.bus.follow(subjects.HOSTS_STREAM, subject, self._on_document, last=True)
            )
            try:
                await self._begin.wait()
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    async def report(self) -> None:
        ports = [port.vnic_id for port in self.document.ports] if self.document else []
        applied = HostApplied(
            host_id=self.id,
            revision=self.document.revision if self.document else 0,
            fleet_revision=self.fleet.revision if self.fleet else 0,
            waiting=() if self.devices else tuple(sorted(ports)[self.up :]),
            failed=dict.fromkeys(ports, self.failing) if self.failing else {},
            at=time.time(),
        )
        await self.bus.publish(subjects.host_applied(self.id), applied)

    async def _on_document(self, data: bytes) -> None:
        if self.lose:
            self.lose -= 1
            return
        if self._reader.take(messages.decode_host(data)):
            document = self._reader.document()
            if self.document is None or (document and document.revision >= self.document.revision):
                self.document = document
        self.moved()

    async def _on_fleet(self, data: bytes) -> None:
        if self.lose:
            self.lose -= 1
            return
        self.fleet = messages.decode(data, FleetDocument)
        self.moved()
