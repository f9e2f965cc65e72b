"""Hosts that run the real agent, with a controller and gateways that do as the test says.

The gateways' packet path is the real one too; what they answer by RSP is the test's.
"""

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid4

import httpx
import msgspec
import numpy as np
from nats.js.api import StreamConfig

from achelous_gateway.changes import ChangeLogs
from achelous_gateway.shared_table import SharedTable, map_sizes
from achelous_lab.netns.cables import Cable
from achelous_lab.netns.guest import Guest, Nic
from achelous_lab.netns.network import Network
from achelous_lab.netns.underlay import Node
from achelous_lab.process import Process
from achelous_lab.rundir import RunDir
from achelous_lab.servers.nats import NatsServer
from achelous_lab.syscalls import unmount
from achelous_lab.waiting import wait_until
from achelous_shared import messages, rsp, rsp_changes, subjects
from achelous_shared.bpf import BpfObject, NetNs, attach_tcx, ensure_bpffs, object_path
from achelous_shared.bus import Bus
from achelous_shared.bus_roles import Role
from achelous_shared.messages import SecurityRule
from achelous_shared.names import GUEST_MTU, port_ifname
from achelous_shared.routes import ROUTE, RouteOp, ip_bytes, mac_bytes
from achelous_shared.rsp_hash import destination_hashes

os.environ.setdefault("ACHELOUS_BPF_DIR", str(Path(__file__).parents[1] / "build/bpf"))

VNI = 4200
ROUTER = IPv4Address("10.1.0.1")
OPTIONS = rsp.Options(rsp.Capability.CHANGES, GUEST_MTU)
_ROUTES = 256
"""That a relay has room for."""
_NO_HASHES, _NO_AGES = np.zeros(0, np.uint32), np.zeros(0, np.uint16)


def rule(
    *, egress: bool = False, protocol: int = 0, ports: tuple[int, int] = (0, 65535)
) -> SecurityRule:
    """A rule that allows any address."""
    return SecurityRule(
        egress=egress, protocol=protocol, port_min=ports[0], port_max=ports[1],
        remote=bytes(16), remote_len=0,
    )  # fmt: skip


OPEN = UUID(int=1)
"""A security group that allows everything."""
CLOSED = UUID(int=2)
"""One that lets its members send, and nobody reach them."""
GROUPS = {OPEN: (rule(), rule(egress=True)), CLOSED: (rule(egress=True),)}


@dataclass(slots=True)
class Route:
    """What a gateway says of one destination."""

    vtep: IPv4Address
    mac: str
    revision: int = 1


@dataclass(slots=True)
class Vnic:
    """A vNIC, its guest and the guest's cable."""

    vnic_id: UUID
    guest: Guest
    cable: Cable
    port: messages.Port

    @property
    def device(self) -> str:
        return port_ifname(self.vnic_id)


class Gateway:
    """The real relay, and an RSP server that answers from `routes`."""

    def __init__(self, node: Node, number: int) -> None:
        self.node = node
        self.gateway_id = UUID(int=0xA0 + number)
        self.routes: dict[tuple[int, bytes], Route] = {}
        self.asked: list[bytes] = []
        self.silent = False
        self.steps = 1
        """The revision of the VPC."""
        self.changes = ChangeLogs()
        self.changes.begin(VNI, 1)
        self._loaded = BpfObject.open(
            object_path("gateway"), pin_dir=None, max_entries=map_sizes(_ROUTES)
        )
        self._table = SharedTable(_ROUTES, self._loaded.maps)
        self._netns = NetNs(node.namespace.path)

    def address(self) -> messages.GatewayAddress:
        return messages.GatewayAddress(
            gateway_id=self.gateway_id, name=self.node.name, vtep=int(self.node.ip)
        )

    def relay(self, hosts: list[IPv4Address]) -> None:
        """Start relaying, and answering probes, for these hosts."""
        maps = self._loaded.maps
        ifindex = self._netns.run_sync(lambda: socket.if_nametoindex("underlay0"))
        config = maps["config"].mmap()[0]
        config["vtep"] = int(self.node.ip)
        config["underlay_ifindex"] = ifindex
        self.heartbeat(3600)
        for host in hosts:
            maps["vteps"].update(int(host), 1)
        self._link = self._netns.run_sync(
            lambda: attach_tcx(self._loaded.programs["relay"], ifindex, pin=None)
        )

    def set_route(self, vnic: Vnic, host: "Host", revision: int = 1) -> None:
        """Relay to this vNIC's host, and say so when asked."""
        self.routes[vnic.port.vni, vnic.port.ip] = Route(
            host.node.ip, vnic.guest.nics[0].mac, revision
        )
        self._step(vnic)
        self._apply(vnic, RouteOp.UPSERT, host.node.ip, revision)

    def say(self, vnic: Vnic, vtep: IPv4Address, revision: int) -> None:
        """Give another answer when asked; packets that it relays still go the right way."""
        self.routes[vnic.port.vni, vnic.port.ip] = Route(vtep, vnic.guest.nics[0].mac, revision)
        self._step(vnic)

    def heartbeat(self, seconds: float) -> None:
        """Vouch for its tables until so far in the future, or as of so far in the past."""
        heartbeat_ns = time.monotonic_ns() + int(seconds * 1e9)
        self._loaded.maps["config"].mmap()[0]["heartbeat_ns"] = heartbeat_ns

    def asked_for(self, address: IPv4Address) -> int:
        """How often it was asked for an address."""
        return self.asked.count(ip_bytes(address))

    def remove_route(self, vnic: Vnic) -> None:
        route = self.routes.pop((vnic.port.vni, vnic.port.ip))
        self._step(vnic)
        self._apply(vnic, RouteOp.DELETE, route.vtep, route.revision)

    def relayed(self) -> int:
        """Packets relayed so far."""
        counters = self._loaded.maps["counters"].per_cpu_lookup(0)
        return int(counters["relayed_packets"].sum())

    async def answer(self, data: bytes) -> bytes:
        """Answer one RSP request."""
        if self.silent:
            return b""
        if data[3] == rsp.MessageType.WATCH:
            return self._changes(data)
        request = rsp.decode(data, rsp.MessageType.REQUEST)
        self.asked += [key.tobytes() for key in request.entries["key"]]
        replies = np.zeros(len(request.entries), rsp.REPLY)
        for name in rsp.REQUEST.fields or ():
            replies[name] = request.entries[name]
        replies["as_of"] = self.steps
        for reply in replies:
            self._fill(reply)
        return rsp.encode(rsp.MessageType.REPLY, request.id, replies, OPTIONS)

    def close(self) -> None:
        self._link.close()
        self._loaded.close()
        self._netns.close()

    def _step(self, vnic: Vnic) -> None:
        """The VPC's next revision: this vNIC's route changed."""
        self.steps += 1
        hashes = destination_hashes(vnic.port.vni, np.frombuffer(vnic.port.ip, np.uint8))
        self.changes.append(vnic.port.vni, self.steps, hashes, time.monotonic_ns())

    def _changes(self, data: bytes) -> bytes:
        head, watched = rsp_changes.decode_watches(data)
        entries = np.zeros(len(watched), rsp_changes.CHANGES)
        for name in rsp_changes.WATCH.names or ():
            entries[name] = watched[name]
        found = [
            self.changes.since(int(vni), int(since), self.steps, 1000, time.monotonic_ns())
            for vni, since in watched[["vni", "since"]]
        ]
        for entry, changes in zip(entries, found, strict=True):
            entry["status"] = rsp_changes.Status.CHANGES if changes else rsp_changes.Status.RECHECK
            entry["count"] = len(changes.hashes) if changes else 0
            entry["revision"] = self.steps
        hashes = np.concatenate([changes.hashes for changes in found if changes] or [_NO_HASHES])
        ages = np.concatenate([changes.ages_ms for changes in found if changes] or [_NO_AGES])
        return rsp_changes.encode_changes(head.id, entries, hashes, ages, OPTIONS)

    def _fill(self, reply: np.void) -> None:
        route = self.routes.get((int(reply["vni"]), reply["key"].tobytes()))
        if route is None:
            reply["type"] = rsp.ReplyType.NO_ROUTE
            return
        reply["type"], reply["length"], reply["mtu"] = rsp.ReplyType.ROUTE, 16, GUEST_MTU
        reply["revision"] = route.revision
        reply["next_hop"] = np.frombuffer(ip_bytes(route.vtep), np.uint8)
        reply["mac"] = np.frombuffer(mac_bytes(route.mac), np.uint8)

    def _apply(self, vnic: Vnic, op: RouteOp, vtep: IPv4Address, revision: int) -> None:
        entry = np.zeros(1, ROUTE)
        entry["op"], entry["vtep"], entry["revision"] = op, int(vtep), revision
        entry["ip"] = np.frombuffer(vnic.port.ip, np.uint8)
        entry["mac"] = np.frombuffer(vnic.port.mac, np.uint8)
        self._table.apply(vnic.port.vni, entry)


class Host:
    """One host: its node, its agent, and the document that it shall run."""

    def __init__(self, world: "World", node: Node, settings: Mapping[str, str]) -> None:
        self._world = world
        self.node = node
        self.host_id = uuid4()
        self.bpffs = world.run_dir.subdir(f"bpf-{node.name}")
        self.ports: dict[UUID, messages.Port] = {}
        self.groups = dict(GROUPS)
        self.revision = 0
        self._environment = {
            "ACHELOUS_HOST_ID": str(self.host_id),
            "ACHELOUS_NATS_URL": world.nats.url(Role.VSWITCH),
            "ACHELOUS_NETNS": str(node.namespace.path),
            "ACHELOUS_BPFFS": str(self.bpffs),
            "ACHELOUS_RUN_DIR": str(world.run_dir.path),
            "ACHELOUS_MAX_SESSIONS": "16384",
            "ACHELOUS_MAX_FC": "4096",
            "ACHELOUS_LEARN_PACKETS": "1",
            **settings,
        }
        self.agent = self.process("agent")

    def process(self, name: str, *arguments: str) -> Process:
        """`python -m achelous_vswitch` with this host's settings, not started yet."""
        return Process(
            f"{name} of {self.node.name}",
            [sys.executable, "-m", "achelous_vswitch", *arguments],
            log=self._world.run_dir.log(f"{name}-{self.node.name}"),
            env=self._environment,
        )

    def upgrade(self, objects: Path) -> None:
        """The next agent to be started loads its programs from `objects`."""
        self._environment["ACHELOUS_BPF_DIR"] = str(objects)
        self.agent = self.process("agent")

    async def stop(self) -> None:
        """Stop the agent, be it the first one or another."""
        await self.agent.stop()

    async def start_again(self) -> None:
        """Start the agent, and wait until it runs the document as it is now."""
        self._world.reports.pop(self.host_id, None)
        await self.agent.start()
        await self.applied(timeout=20)

    async def vnic(self) -> Vnic:
        """A guest with one vNIC in the open group; its device is not on the host yet."""
        world = self._world
        vnic_id = uuid4()
        number = world.next_number()
        nic = Nic(f"02:00:00:00:01:{number:02x}", IPv4Interface(f"10.1.1.{number}/16"), ROUTER)
        guest = await world.network.guest(f"g{number}")
        cable = await guest.add_nic(world.network.cables, nic)
        port = messages.Port(
            vnic_id=vnic_id, instance_id=uuid4(), vni=VNI, mac=mac_bytes(nic.mac),
            ip=ip_bytes(nic.address.ip), prefix_len=96 + nic.address.network.prefixlen,
            router=ip_bytes(ROUTER), mtu=GUEST_MTU, security_groups=(OPEN,), revision=1,
        )  # fmt: skip
        return Vnic(vnic_id, guest, cable, port)

    async def plug(self, vnic: Vnic) -> None:
        await vnic.cable.plug(self.node.namespace, vnic.device)

    async def run(self, *vnics: Vnic) -> None:
        """Plug vNICs in, ask for them, and wait until they run."""
        for vnic in vnics:
            await self.plug(vnic)
            self.ports[vnic.vnic_id] = vnic.port
        await self.publish()
        await self.applied()

    async def withdraw(self, vnic: Vnic) -> None:
        """Ask for a vNIC no longer; its device stays."""
        del self.ports[vnic.vnic_id]
        await self.publish()
        await self.applied()

    async def set_groups(self, vnic: Vnic, *groups: UUID) -> None:
        """Put a vNIC into other security groups."""
        self.ports[vnic.vnic_id] = msgspec.structs.replace(vnic.port, security_groups=groups)
        await self.publish()
        await self.applied()

    def view_of(self, vnic: Vnic, shown: messages.VswitchShow) -> messages.PortView:
        return next(port for port in shown.ports if port.vnic_id == vnic.vnic_id)

    async def publish(self) -> None:
        """Send the document as it is now, with the next revision."""
        self.revision += 1
        await self._world.publish_host(self)

    async def change(self, base: int, *, new: Sequence[Vnic], gone: Sequence[Vnic]) -> None:
        """Send what changed since the document of revision ``base``, and wait until it runs."""
        for vnic in gone:
            del self.ports[vnic.vnic_id]
        for vnic in new:
            await self.plug(vnic)
            self.ports[vnic.vnic_id] = vnic.port
        self.revision += 1
        changes = messages.HostChanges(
            host_id=self.host_id,
            base=base,
            revision=self.revision,
            ports=tuple(vnic.port for vnic in new),
            gone=tuple(vnic.vnic_id for vnic in gone),
        )
        subject = subjects.host_changes(self.host_id)
        await self._world.publish_raw(subject, messages.encode(changes))
        await self.applied()

    async def applied(self, timeout: float = 10.0) -> messages.HostApplied:
        """Wait until the agent runs the last document with nothing waiting."""
        return await self.reported(
            lambda report: report.revision == self.revision and not report.waiting, timeout
        )

    async def reported(
        self, wanted: Callable[[messages.HostApplied], bool], timeout: float = 10.0
    ) -> messages.HostApplied:
        """Wait for a report; the last one counts, too."""
        reports = self._world.reports
        await wait_until(
            lambda: self.host_id in reports and wanted(reports[self.host_id]),
            lambda: f"a report of {self.node.name}: {reports.get(self.host_id)}",
            timeout=timeout,
        )
        return reports[self.host_id]

    async def show(self) -> messages.VswitchShow:
        """What the agent shows an operator."""
        subject = subjects.show("vswitch", self.host_id)
        request = messages.encode(messages.ShowRequest())
        data = await self._world.bus.request(subject, request, timeout=5)
        return messages.decode(data, messages.VswitchShow)

    async def shows(
        self, wanted: Callable[[messages.VswitchShow], bool], timeout: float = 5.0
    ) -> float:
        """Wait until it shows something; returns after how many seconds."""
        last: list[messages.VswitchShow] = []

        async def as_wanted() -> bool:
            last[:] = [await self.show()]
            return wanted(last[0])

        return await wait_until(as_wanted, lambda: f"another table than {last}", timeout=timeout)

    async def metric(self, name: str) -> float:
        """The value of one sample, labels included, 0 if there is none."""
        text = (await self.get("/metrics")).text
        lines = [line for line in text.splitlines() if line.startswith(f"{name} ")]
        return float(lines[0].rpartition(" ")[2]) if lines else 0.0

    async def metric_is(self, name: str, *, above: float) -> bool:
        return await self.metric(name) > above

    async def get(self, path: str) -> httpx.Response:
        """GET from the agent's own HTTP server."""
        address = self._world.run_dir.path / f"vswitch-{self.host_id}.http"
        await wait_until(address.exists, f"{address}")
        async with httpx.AsyncClient() as client:
            return await client.get(f"http://{address.read_text().strip()}{path}")


@dataclass
class World:
    """NATS, a controller's voice on it, gateways, and hosts with agents."""

    run_dir: RunDir
    network: Network
    nats: NatsServer
    bus: Bus
    hosts: list[Host] = field(default_factory=list)
    gateways: list[Gateway] = field(default_factory=list)
    reports: dict[UUID, messages.HostApplied] = field(default_factory=dict)
    _numbers: int = 0
    _fleet_revision: int = 0

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    async def take_report(self, data: bytes) -> None:
        report = messages.decode(data, messages.HostApplied)
        self.reports[report.host_id] = report

    async def publish_host(self, host: Host) -> None:
        document = messages.HostDocument(
            host_id=host.host_id, revision=host.revision,
            ports=tuple(host.ports.values()), security_groups=host.groups,
        )  # fmt: skip
        await self.publish_raw(subjects.host(host.host_id), messages.encode(document))

    async def publish_fleet(self) -> None:
        self._fleet_revision += 1
        fleet = messages.FleetDocument(
            revision=self._fleet_revision,
            host_vteps=b"".join(host.node.ip.packed for host in self.hosts),
            gateways=tuple(gateway.address() for gateway in self.gateways),
        )
        await self.publish_raw(subjects.FLEET, messages.encode(fleet))

    async def publish_raw(self, subject: str, data: bytes) -> None:
        await self.bus.publish_stream(subjects.HOSTS_STREAM, subject, data, message_id=uuid4().hex)

    def relayed(self) -> int:
        """Packets that all gateways have relayed so far."""
        return sum(gateway.relayed() for gateway in self.gateways)

    def set_route(self, vnic: Vnic, host: Host, revision: int = 1) -> None:
        """On all gateways."""
        for gateway in self.gateways:
            gateway.set_route(vnic, host, revision)


@asynccontextmanager
async def make_world(
    run_dir: RunDir, network: Network, hosts: int, gateways: int, **settings: str
) -> AsyncIterator[World]:
    """A world whose agents run and know the fleet. All of it goes at the end. `settings`: of the
    agents, by the names of their environment variables."""
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(NatsServer(run_dir.subdir("nats")))
        bus, gateway_bus = [
            await stack.enter_async_context(Bus.connect(nats.url(role), role=role, name="test"))
            for role in (Role.CONTROLLER, Role.GATEWAY)
        ]
        world = World(run_dir, network, nats, bus)
        tasks = await stack.enter_async_context(Background())
        await bus.ensure_stream(
            StreamConfig(
                name=subjects.HOSTS_STREAM,
                subjects=[subjects.ALL_HOSTS, subjects.ALL_HOST_CHANGES, subjects.FLEET],
                max_msgs_per_subject=1,
            )
        )
        tasks.start(bus.listen(subjects.ALL_HOSTS_APPLIED, world.take_report))
        for number in range(gateways):
            node = await network.underlay.node(f"gw{number}", IPv4Address(f"198.18.1.{number + 1}"))
            gateway = Gateway(node, number)
            stack.callback(gateway.close)
            world.gateways.append(gateway)
            tasks.start(gateway_bus.serve(subjects.rsp(gateway.gateway_id), gateway.answer))
        for number in range(hosts):
            node = await network.underlay.node(f"h{number}", IPv4Address(f"198.18.0.{number + 1}"))
            host = Host(world, node, settings)
            ensure_bpffs(host.bpffs)
            stack.callback(unmount, host.bpffs)
            world.hosts.append(host)
        for gateway in world.gateways:
            gateway.relay([host.node.ip for host in world.hosts])
        await world.publish_fleet()
        for host in world.hosts:
            await host.agent.start()
            stack.push_async_callback(host.stop)
        for host in world.hosts:
            await host.reported(lambda report: report.fleet_revision > 0)
        yield world


class Background:
    """Tasks that run until the end of the block."""

    async def __aenter__(self) -> Self:
        self._tasks: list[asyncio.Task[None]] = []
        return self

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
