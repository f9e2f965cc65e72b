"""For tests of the gateway: a controller that can misbehave, and a gateway as a process."""

import asyncio
import itertools
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from uuid import UUID, uuid4

import httpx
import numpy as np
from nats.js.api import StreamConfig

from achelous_lab.process import Process
from achelous_lab.rundir import RunDir
from achelous_lab.servers.nats import NatsServer
from achelous_lab.waiting import wait_until
from achelous_shared import messages, rsp, subjects
from achelous_shared.bus import Bus
from achelous_shared.bus_roles import Role
from achelous_shared.messages import (
    FleetDocument,
    GatewayAddress,
    GatewayApplied,
    GatewayShow,
    RevisionsReply,
    RevisionsRequest,
    RouteDelta,
    ShowRequest,
    SnapshotReply,
    SnapshotRequest,
)
from achelous_shared.routes import REVISION, ROUTE, RouteOp, Routes, ip_bytes, pack, unpack

GATEWAY_VTEP = IPv4Address("198.18.0.1")
ADDRESSES = [ip_bytes(f"10.0.{n // 200}.{n % 200 + 1}") for n in range(600)]
"""All addresses that tests use, in order."""

CAPACITY = 5000
"""Routes that the gateway has room for."""

Table = dict[bytes, tuple[int, int]]
"""Address -> (VTEP, revision)."""


def entries_of(table: Table, op: RouteOp = RouteOp.UPSERT) -> Routes:
    entries = np.zeros(len(table), ROUTE)
    for at, (ip, (vtep, revision)) in enumerate(table.items()):
        entries[at]["ip"] = np.frombuffer(ip, np.uint8)
        entries[at]["op"], entries[at]["vtep"], entries[at]["revision"] = op, vtep, revision
    return entries


async def _pass(_: SnapshotRequest) -> None:
    """Let the controller answer."""


class FakeController:
    """Holds desired tables, publishes what it is told to, answers what it is asked."""

    def __init__(self, server: NatsServer, bus: Bus, run_dir: RunDir) -> None:
        self.server = server
        self.run_dir = run_dir
        self.gateway_id = uuid4()
        self._bus = bus
        self._ids = itertools.count()
        self.tables: dict[int, Table] = defaultdict(dict)
        self.revisions: dict[int, int] = defaultdict(int)
        self.reports: list[GatewayApplied] = []
        self.applied: dict[int, int] = {}
        """What the gateway reported last, by VNI."""
        self.snapshots = 0
        self.chunk = 8192
        """Entries of a snapshot's reply, at most."""
        self.page = 8192
        """Revisions of a listing's reply, at most."""
        self.on_snapshot: Callable[[SnapshotRequest], Awaitable[SnapshotReply | None]] = _pass
        """Awaited before each reply; answers in place of it if it returns one."""

    def change(
        self, vni: int, *, put: Iterable[int] = (), delete: Iterable[int] = (), host: int = 2
    ) -> RouteDelta:
        """Route numbered addresses to 198.18.0.<host>, withdraw others; the delta to publish."""
        base, revision = self.revisions[vni], self.revisions[vni] + 1
        self.revisions[vni] = revision
        vtep = int(IPv4Address("198.18.0.0")) + host
        upserts = {ADDRESSES[n]: (vtep, revision) for n in put}
        deletes = {ADDRESSES[n]: (0, revision) for n in delete}
        self.tables[vni] |= upserts
        for ip in deletes:
            self.tables[vni].pop(ip, None)
        entries = np.concatenate((entries_of(upserts), entries_of(deletes, RouteOp.DELETE)))
        return RouteDelta(vni=vni, base=base, revision=revision, entries=pack(entries))

    async def publish(self, *deltas: RouteDelta) -> None:
        for delta in deltas:
            await self.publish_raw(delta.vni, messages.encode(delta))

    async def publish_raw(self, vni: int, data: bytes) -> None:
        await self._bus.publish_stream(
            subjects.ROUTES_STREAM, subjects.routes(vni), data, message_id=f"t{next(self._ids)}"
        )

    async def announce(self, vni: int) -> None:
        revision = self.revisions[vni]
        await self.publish(RouteDelta(vni=vni, base=revision, revision=revision, entries=b""))

    async def publish_fleet(self, revision: int, *hosts: IPv4Address) -> None:
        """A fleet of these hosts and the gateway."""
        document = FleetDocument(
            revision=revision,
            host_vteps=b"".join(host.packed for host in hosts),
            gateways=(
                GatewayAddress(gateway_id=self.gateway_id, name="g1", vtep=int(GATEWAY_VTEP)),
            ),
        )
        await self._bus.publish_stream(
            subjects.HOSTS_STREAM,
            subjects.FLEET,
            messages.encode(document),
            message_id=f"f{next(self._ids)}",
        )

    async def command_report(self) -> None:
        await self._bus.publish(subjects.REPORT, messages.Message())

    async def show(self) -> GatewayShow:
        subject = subjects.show("gateway", self.gateway_id)
        request = messages.encode(ShowRequest())
        return messages.decode(await self._bus.request(subject, request, timeout=2), GatewayShow)

    async def until_applied(self, *vnis: int) -> None:
        """Until the gateway says that it has the newest revision of these VPCs."""

        def missing() -> str:
            return f"revisions {dict(self.revisions)} at the gateway, which has {self.applied}"

        await wait_until(
            lambda: all(self.applied.get(vni) == self.revisions[vni] for vni in vnis), missing
        )

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._bus.serve(subjects.SNAPSHOT_ROUTES, self._snapshot))
            group.create_task(self._bus.serve(subjects.SNAPSHOT_REVISIONS, self._revisions))
            group.create_task(self._bus.listen(subjects.ALL_GATEWAYS_APPLIED, self._on_report))

    async def _on_report(self, data: bytes) -> None:
        report = messages.decode(data, GatewayApplied)
        self.reports.append(report)
        if report.full:
            self.applied.clear()
        self.applied |= dict(unpack(report.revisions, REVISION).tolist())

    async def _snapshot(self, data: bytes) -> bytes:
        request = messages.decode(data, SnapshotRequest)
        self.snapshots += 1
        if (instead := await self.on_snapshot(request)) is not None:
            return messages.encode(instead)
        table = self.tables[request.vni]
        until = request.until or b"\xff" * 16
        after = sorted(ip for ip in table if request.after < ip <= until)
        some = after[: min(request.limit, self.chunk)]
        reply = SnapshotReply(
            vni=request.vni,
            revision=self.revisions[request.vni],
            entries=pack(entries_of({ip: table[ip] for ip in some})),
            done=len(some) == len(after),
            spans=((min(table), max(table)),) if table else (),
        )
        return messages.encode(reply)

    async def _revisions(self, data: bytes) -> bytes:
        request = messages.decode(data, RevisionsRequest)
        after = sorted(vni for vni in self.revisions if vni > request.after)
        some = after[: min(request.limit, self.page)]
        packed = np.array([(vni, self.revisions[vni]) for vni in some], REVISION)
        return messages.encode(RevisionsReply(revisions=pack(packed), done=len(some) == len(after)))


@dataclass(frozen=True, slots=True)
class GatewayUnderTest:
    """A gateway's process, and a vSwitch's eyes on it."""

    id: UUID
    process: Process
    run_dir: RunDir
    vswitch: Bus

    async def lookup(self, vnis: Iterable[int]) -> dict[int, Table]:
        """The whole tables of these VPCs, asked for by RSP."""
        return {vni: await self._lookup(vni) for vni in vnis}

    async def _lookup(self, vni: int) -> Table:
        keys = np.frombuffer(b"".join(ADDRESSES), np.uint8).reshape(-1, 16)
        asked = rsp.requests(np.full(len(keys), vni), keys)
        request = rsp.encode(rsp.MessageType.REQUEST, 1, asked)
        data = await self.vswitch.request(subjects.rsp(self.id), request, timeout=2)
        entries = rsp.decode(data, rsp.MessageType.REPLY).entries
        found = entries[entries["type"] == rsp.ReplyType.ROUTE]
        return {
            entry["key"].tobytes(): (
                int.from_bytes(entry["next_hop"].tobytes()[12:]), int(entry["revision"])
            )
            for entry in found
        }  # fmt: skip

    async def get(self, path: str) -> httpx.Response:
        """GET from the address that the gateway wrote down."""
        address = (self.run_dir.path / f"gateway-{self.id}.http").read_text().strip()
        async with httpx.AsyncClient(timeout=2) as http:
            return await http.get(f"http://{address}/{path}")

    async def metric(self, name: str) -> float:
        """One metric without labels, less its prefix."""
        text = (await self.get("metrics")).text
        [line] = [
            line for line in text.splitlines() if line.startswith(f"achelous_gateway_{name} ")
        ]
        return float(line.rpartition(" ")[2])

    async def ready(self) -> bool:
        """Whether /readyz says yes."""
        try:
            return (await self.get("readyz")).is_success
        except (FileNotFoundError, httpx.HTTPError):
            return False


@asynccontextmanager
async def connected(server: NatsServer, role: Role) -> AsyncIterator[Bus]:
    async with Bus.connect(server.url(role), role=role, name="test") as bus:
        yield bus


@asynccontextmanager
async def controller_in(run_dir: RunDir) -> AsyncIterator[FakeController]:
    """A bus with its streams, and a controller that answers."""
    async with NatsServer(run_dir.path) as server, connected(server, Role.CONTROLLER) as bus:
        await bus.ensure_stream(
            StreamConfig(subjects.ROUTES_STREAM, subjects=[subjects.ALL_ROUTES])
        )
        hosts = [subjects.ALL_HOSTS, subjects.ALL_HOST_CHANGES, subjects.FLEET]
        await bus.ensure_stream(
            StreamConfig(subjects.HOSTS_STREAM, subjects=hosts, max_msgs_per_subject=1)
        )
        controller = FakeController(server, bus, run_dir)
        task = asyncio.create_task(controller.run())
        await controller.publish_fleet(0)
        try:
            yield controller
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def gateway_of(
    controller: FakeController, **settings: str
) -> AsyncIterator[GatewayUnderTest]:
    """A gateway's process, not started yet; ended at the end."""
    run_dir, gateway_id = controller.run_dir, controller.gateway_id
    environment = {
        "NATS_URL": controller.server.url(Role.GATEWAY),
        "RUN_DIR": str(run_dir.path),
        "GATEWAY_ID": str(gateway_id),
        "ROUTE_CAPACITY": str(CAPACITY),
    } | settings
    process = Process(
        "gateway",
        [sys.executable, "-m", "achelous_gateway"],
        log=run_dir.log("gateway"),
        env={f"ACHELOUS_{key}": value for key, value in environment.items()},
        ready=lambda: gateway.ready(),
    )
    async with connected(controller.server, Role.VSWITCH) as vswitch:
        gateway = GatewayUnderTest(gateway_id, process, run_dir, vswitch)
        try:
            yield gateway
        finally:
            await process.stop()


async def following(controller: FakeController, vni: int) -> None:
    """Until what is published reaches the gateway, whose follower starts a moment after it."""
    await controller.publish(controller.change(vni, put=[0]))

    async def reached() -> bool:
        await controller.announce(vni)
        return controller.applied.get(vni) == controller.revisions[vni]

    await wait_until(reached, "the gateway to follow", interval=0.1)


async def assert_equal(gateway: GatewayUnderTest, controller: FakeController) -> None:
    """Every route that the controller wants is answered, and no other."""
    await controller.until_applied(*controller.revisions)
    assert await gateway.lookup(controller.revisions) == dict(controller.tables)
