"""The gateway's data plane: the routes that the kernel holds, and who it relays for."""

import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from gateway_world import (
    CAPACITY,
    GATEWAY_VTEP,
    FakeController,
    GatewayUnderTest,
    Table,
    assert_equal,
    controller_in,
    following,
    gateway_of,
)
from relay_maps import relay_routes

from achelous_gateway.shared_table import map_sizes
from achelous_lab import syscalls
from achelous_lab.netns.network import Network
from achelous_lab.netns.underlay import UNDERLAY_DEVICE, Node
from achelous_lab.rundir import RunDir
from achelous_lab.waiting import wait_until
from achelous_shared.bpf import BpfObject, ensure_bpffs
from achelous_shared.messages import SnapshotReply

pytestmark = pytest.mark.kernel

BPF_DIR = Path(os.environ.get("ACHELOUS_BPF_DIR", Path(__file__).parents[2] / "build/bpf"))
HOST_VTEP, STRANGER = IPv4Address("198.18.0.2"), IPv4Address("198.18.0.3")
VPC, OTHER = 7, 8
PROBE = struct.Struct("!IBBHIIQ")
"""magic, version, type, reserved, sequence, heartbeat age in ms, sent; see ach_probe."""
PROBE_PORT = 4798


@pytest.fixture
async def controller(run_dir: RunDir) -> AsyncIterator[FakeController]:
    """A controller whose fleet is one host and the gateway."""
    async with controller_in(run_dir) as controller:
        await controller.publish_fleet(1, HOST_VTEP)
        yield controller


@pytest.fixture
def bpffs(run_dir: RunDir) -> Iterator[Path]:
    mount = run_dir.subdir("bpffs")
    ensure_bpffs(mount)
    try:
        yield mount / "g1"
    finally:
        syscalls.unmount(mount)


@pytest.fixture
async def machine(network: Network) -> Node:
    return await network.underlay.node("g1", GATEWAY_VTEP)


@pytest.fixture
async def stopped(
    controller: FakeController, machine: Node, bpffs: Path
) -> AsyncIterator[GatewayUnderTest]:
    """A gateway that has not been started."""
    async with gateway_of(
        controller,
        BPF_DIR=str(BPF_DIR),
        BPFFS=str(bpffs),
        NETNS=str(machine.namespace.path),
        UNDERLAY_DEVICE=UNDERLAY_DEVICE,
    ) as gateway:
        yield gateway


@pytest.fixture
async def gateway(stopped: GatewayUnderTest, controller: FakeController) -> GatewayUnderTest:
    """A gateway that follows VPC 7, which has routes to addresses 0..9."""
    controller.change(VPC, put=range(10))
    await stopped.process.start()
    await following(controller, VPC)
    return stopped


def kernel_tables(bpffs: Path) -> dict[int, Table]:
    """What the pinned maps hold."""
    keys, values = relay_routes(BPF_DIR / "gateway.bpf.o", bpffs / "maps", CAPACITY)
    tables: dict[int, Table] = {int(vni): {} for vni in np.unique(keys["vni"])}
    for key, value in zip(keys, values, strict=True):
        route = int(value["vtep"]), int(value["revision"])
        tables[int(key["vni"])][key["ip"].tobytes()] = route
    return tables


def leave_hash_table(pins: Path, tables: dict[int, Table]) -> None:
    """Pin `routes` as it was before the table became the agent's own: what traces call by that name
    has the same layout."""
    entries = [(vni, ip, *route) for vni, table in tables.items() for ip, route in table.items()]
    sizes = {"routes": len(entries), **map_sizes(CAPACITY)}
    with BpfObject.open(BPF_DIR / "gateway.trace.o", pin_dir=pins, max_entries=sizes) as loaded:
        routes = loaded.maps["routes"]
        keys = np.zeros(len(entries), routes.key_dtype)
        values = np.zeros(len(entries), routes.value_dtype)
        for at, (vni, ip, vtep, revision) in enumerate(entries):
            keys[at] = (vni, np.frombuffer(ip, np.uint8))
            values["vtep"][at], values["revision"][at] = vtep, revision
        routes.update_batch(keys, values)
    for pin in pins.iterdir():
        if pin.name != "routes":
            pin.unlink()


def refuse_at_first(
    controller: FakeController, bpffs: Path, *, times: int
) -> list[dict[int, Table]]:
    """Let so many requests for a snapshot fail; what the kernel had at each request."""
    seen: list[dict[int, Table]] = []

    async def answer(_: object) -> SnapshotReply | None:
        seen.append(kernel_tables(bpffs))
        if len(seen) > times:
            return None
        return SnapshotReply(vni=0, revision=0, entries=b"", done=True, error="not yet")

    controller.on_snapshot = answer
    return seen


class TestRoutes:
    async def test_the_kernel_holds_the_same_table(
        self, gateway: GatewayUnderTest, controller: FakeController, bpffs: Path
    ) -> None:
        for n in range(10):
            await controller.publish(
                controller.change(VPC, put=[n, n + 1], delete=[n - 5], host=n),
                controller.change(OTHER, put=range(n * 50), delete=range(500, 550), host=n),
            )
        controller.change(VPC, put=range(20, 300), delete=range(5))  # lost
        await controller.announce(VPC)
        await controller.publish_raw(OTHER, b"garbage")

        await assert_equal(gateway, controller)
        assert kernel_tables(bpffs) == controller.tables

    async def test_a_restart_flushes_nothing_and_applies_the_difference(
        self, gateway: GatewayUnderTest, controller: FakeController, bpffs: Path
    ) -> None:
        await controller.publish(controller.change(OTHER, put=range(200)))
        await controller.until_applied(VPC, OTHER)
        before = kernel_tables(bpffs)
        await gateway.process.kill9()

        controller.change(OTHER, put=range(190, 260), delete=range(50), host=9)
        seen = refuse_at_first(controller, bpffs, times=3)
        await gateway.process.start()
        assert seen[:4] == [before] * 4
        await assert_equal(gateway, controller)
        assert kernel_tables(bpffs) == controller.tables

    async def test_routes_that_the_release_before_left_are_taken_over(
        self, stopped: GatewayUnderTest, controller: FakeController, bpffs: Path
    ) -> None:
        controller.change(VPC, put=range(100))
        left = dict(controller.tables)
        leave_hash_table(bpffs / "maps", left)
        seen = refuse_at_first(controller, bpffs, times=1)
        await stopped.process.start()
        assert seen[0] == left
        assert not (bpffs / "maps" / "routes").exists()
        await assert_equal(stopped, controller)

    async def test_a_vpc_that_went_while_the_gateway_was_dead_goes(
        self, gateway: GatewayUnderTest, controller: FakeController, bpffs: Path
    ) -> None:
        await controller.publish(controller.change(OTHER, put=range(200)))
        await controller.until_applied(OTHER)
        await gateway.process.kill9()
        del controller.tables[OTHER], controller.revisions[OTHER]
        await gateway.process.start()
        assert kernel_tables(bpffs) == {VPC: controller.tables[VPC]}

    async def test_a_vni_that_began_anew_keeps_nothing_of_its_past(
        self, gateway: GatewayUnderTest, controller: FakeController, bpffs: Path
    ) -> None:
        for n in range(5):
            await controller.publish(controller.change(VPC, put=[n + 20]))
        await controller.until_applied(VPC)
        await gateway.process.kill9()
        controller.tables[VPC], controller.revisions[VPC] = {}, 0
        controller.change(VPC, put=[50])
        await gateway.process.start()
        await assert_equal(gateway, controller)
        assert kernel_tables(bpffs) == controller.tables


class Prober:
    """Probes the gateway from a machine on the underlay."""

    def __init__(self, made: socket.socket) -> None:
        self._socket = made
        self._sequence = 0

    def age_ms(self) -> int | None:
        """How old the gateway says that its heartbeat is; None without an answer in 0.3 s."""
        self._sequence += 1
        request = PROBE.pack(0x41434850, 1, 1, 0, self._sequence, 0, 0)
        self._socket.sendto(request, (str(GATEWAY_VTEP), PROBE_PORT))
        try:
            while True:
                reply = PROBE.unpack(self._socket.recv(100))
                if reply[4] == self._sequence:
                    return int(reply[5])
        except TimeoutError:
            return None


Probers = Callable[[IPv4Address], Awaitable[Prober]]


@pytest.fixture
async def prober(network: Network) -> AsyncIterator[Probers]:
    """Makes a machine of this underlay address, and probes from there."""
    with ExitStack() as stack:

        async def make(ip: IPv4Address) -> Prober:
            node = await network.underlay.node(f"h{int(ip) & 0xFF}", ip)
            made = stack.enter_context(await node.namespace.socket(socket.SOCK_DGRAM))
            made.settimeout(0.3)
            return Prober(made)

        yield make


@pytest.mark.usefixtures("gateway")
class TestFleet:
    async def test_hosts_of_the_fleet_are_answered_and_strangers_are_not(
        self, controller: FakeController, prober: Probers
    ) -> None:
        host = await prober(HOST_VTEP)
        stranger = await prober(STRANGER)
        age = host.age_ms()
        assert age is not None
        assert age < 1000
        assert stranger.age_ms() is None
        assert (await controller.show()).drops == {"unknown_vtep": 1}

        await controller.publish_fleet(2, STRANGER)
        await wait_until(lambda: stranger.age_ms() is not None, "the new host")
        assert host.age_ms() is None

    async def test_an_older_fleet_document_changes_nothing(
        self, controller: FakeController, prober: Probers
    ) -> None:
        stranger = await prober(STRANGER)
        await controller.publish_fleet(5, STRANGER)
        await wait_until(lambda: stranger.age_ms() is not None, "the new host")
        await controller.publish_fleet(4, HOST_VTEP)
        await controller.publish_fleet(6, STRANGER, HOST_VTEP)
        host = await prober(HOST_VTEP)
        await wait_until(lambda: host.age_ms() is not None, "the last document")
        assert stranger.age_ms() is not None

    async def test_without_the_bus_it_stops_vouching_and_starts_again(
        self, controller: FakeController, prober: Probers
    ) -> None:
        host = await prober(HOST_VTEP)

        def age() -> int:
            answered = host.age_ms()
            assert answered is not None, "the kernel answers whatever becomes of the agent"
            return answered

        await controller.server.kill9()
        took = await wait_until(lambda: age() > 1000, "the heartbeat to stop")
        assert 2.5 < took < 6
        await controller.server.start()
        await wait_until(lambda: age() < 300, "the heartbeat to go on")

    async def test_a_dead_agent_leaves_its_heartbeat_to_age(
        self, gateway: GatewayUnderTest, prober: Probers
    ) -> None:
        host = await prober(HOST_VTEP)
        await gateway.process.kill9()
        await wait_until(lambda: (host.age_ms() or 0) > 500, "the heartbeat to age")

    async def test_a_gateway_that_the_fleet_no_longer_lists_says_so(
        self, gateway: GatewayUnderTest, controller: FakeController
    ) -> None:
        controller.gateway_id = uuid4()
        await controller.publish_fleet(2, HOST_VTEP)
        await wait_until(lambda: not_ready(gateway), "it to notice")
        checks = (await gateway.get("readyz")).json()["checks"]
        assert checks["dataplane"] == f"the fleet document lists no gateway {gateway.id}"


async def not_ready(gateway: GatewayUnderTest) -> bool:
    return not await gateway.ready()
