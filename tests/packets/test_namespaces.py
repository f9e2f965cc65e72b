"""The programs on real devices, offloads on: two hosts, a guest on each, a gateway between."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from packets.datapath import GATEWAY_VTEP, OWN_VTEP, PEER_VTEP, Port
from packets.frames import frame, guest, udp
from packets.gateway_path import GatewayPath
from packets.hosts import Host, Hosts, Programs
from pyroute2 import IPRoute

from achelous_lab.netns import links
from achelous_lab.netns.guest import Guest
from achelous_lab.netns.network import Network
from achelous_lab.process import run
from achelous_lab.waiting import wait_until

pytestmark = pytest.mark.kernel

A, B = "10.0.0.5", "10.0.0.6"
FLEET = {OWN_VTEP: 1, PEER_VTEP: 1, GATEWAY_VTEP: 2}


@dataclass(frozen=True, slots=True)
class Pair:
    """Guest `a` on host `left`, guest `b` on host `right`; no host knows a route yet."""

    left: Host
    right: Host
    gateway: GatewayPath
    a: Guest
    b: Guest
    port_a: Port
    port_b: Port

    def learn(self) -> None:
        """Both hosts know the other's guest."""
        self.left.datapath.route(B, PEER_VTEP)
        self.right.datapath.route(A, OWN_VTEP)

    def relayed(self) -> int:
        """Packets that went through the gateway."""
        return int(self.gateway.table("counters").per_cpu_all()["relayed_packets"].sum())

    def missing(self) -> int:
        """Packets that `a` sent and `b` was not given."""
        sent = self.left.datapath.counters()[self.port_a.slot]["tx_packets"]
        return sent - self.right.datapath.counters()[self.port_b.slot]["rx_packets"]

    def drops(self) -> dict[str, int]:
        """All drops of both hosts."""
        found: dict[str, int] = {}
        for host in (self.left, self.right):
            for counts in host.datapath.counters().values():
                for name, count in counts.items():
                    if name.isupper() and count:
                        found[name] = found.get(name, 0) + count
        return found


@pytest.fixture
async def pair(network: Network, programs: Programs) -> AsyncIterator[Pair]:
    with Hosts(network, programs) as hosts:
        left = await hosts.host("left", OWN_VTEP, peers=FLEET)
        right = await hosts.host("right", PEER_VTEP, peers=FLEET)
        gateway = await hosts.gateway("gateway")
        gateway.route(A, OWN_VTEP)
        gateway.route(B, PEER_VTEP)
        a, port_a = await left.guest("a", A)
        b, port_b = await right.guest("b", B)
        yield Pair(left, right, gateway, a, b, port_a, port_b)


async def test_packets_are_relayed_until_the_route_is_known_and_then_go_direct(pair: Pair) -> None:
    relayed = await pair.a.ping(pair.b, count=5)
    assert (relayed.received, pair.relayed()) == (5, 10)
    pair.learn()
    direct = await pair.a.ping(pair.b, count=5)
    assert (direct.received, pair.relayed()) == (5, 10)
    assert pair.drops() == {}


@pytest.mark.parametrize("prefix_len", [0, 96 + 32], ids=["not known", "of nobody else"])
async def test_a_vtep_that_is_no_neighbour_is_found_by_the_routes(
    pair: Pair, prefix_len: int
) -> None:
    pair.learn()
    for host in (pair.left, pair.right):
        host.datapath.configure(underlay_prefix_len=prefix_len)
    assert (await pair.a.ping(pair.b, count=5)).received == 5
    assert pair.relayed() == 0


@pytest.mark.parametrize("known", [True, False], ids=["direct", "relayed"])
async def test_tcp_and_udp_pass_at_speed(pair: Pair, known: bool) -> None:
    """GSO frames of 64 KB survive encapsulation and relaying: without them TCP has a tenth.

    A datagram is lost at most at the receiver's socket, which a busy machine may let overflow.
    """
    if known:
        pair.learn()
    tcp = await pair.a.iperf3(pair.b, seconds=1)
    assert tcp.bits_per_second > 1e9
    sent = pair.left.datapath.counters()[pair.port_a.slot]
    assert sent["tx_bytes"] / sent["tx_packets"] > 5000
    missing, full_before = pair.missing(), await socket_full(pair.b)
    datagrams = await pair.a.iperf3(pair.b, seconds=1, udp=True, bitrate="20M", length=1000)
    assert datagrams.packets > 1000
    assert datagrams.lost <= await socket_full(pair.b) - full_before
    await wait_until(lambda: pair.missing() <= missing, "all that was sent", timeout=5)
    assert pair.drops() == {}


async def socket_full(guest: Guest) -> int:
    """Datagrams for which a socket of the guest had no room."""
    said = (await run(["cat", "/proc/net/snmp"], netns=guest.name, timeout=5)).stdout.decode()
    names, values = (line.split() for line in said.splitlines() if line.startswith("Udp:"))
    return int(values[names.index("RcvbufErrors")])


async def test_fragments_of_a_large_ping_pass(pair: Pair) -> None:
    pair.learn()
    sent = await pair.a.namespace.socket(socket.SOCK_DGRAM)
    received = await pair.b.namespace.socket(socket.SOCK_DGRAM)
    with sent, received:
        received.bind((B, 7000))
        sent.sendto(bytes(4000), (B, 7000))
        async with asyncio.timeout(5):
            assert len(await asyncio.get_running_loop().sock_recv(received, 8000)) == 4000
    assert pair.drops() == {}


async def test_neighbours_on_one_host_never_touch_the_underlay(pair: Pair) -> None:
    c, port_c = await pair.left.guest("c", "10.0.0.7")
    assert (await pair.a.ping(c, count=3)).received == 3
    assert (await pair.a.iperf3(c, seconds=1)).bits_per_second > 1e9
    counted = pair.left.datapath.counters()
    assert counted[port_c.slot]["local"] == counted[port_c.slot]["tx_packets"] > 0
    assert (pair.relayed(), pair.drops()) == (0, {})


async def test_a_guest_pings_itself_by_way_of_its_port(pair: Pair) -> None:
    """Its kernel would not send such a frame, a raw socket does."""
    with await pair.a.namespace.socket(socket.SOCK_RAW, socket.AF_PACKET) as link:
        link.bind(("eth0", 0x0800))
        link.send(frame(guest(A), A, udp()))
        await wait_until(
            lambda: pair.left.datapath.counters()[pair.port_a.slot]["rx_packets"] == 1,
            "the frame to come back",
            timeout=5,
        )


def make_veth(netlink: IPRoute) -> None:
    """A cable without the lab's bridge in it, which does not carry such frames."""
    netlink.link("add", ifname="near", kind="veth", peer={"ifname": "far"})
    for name in ("near", "far"):
        netlink.link("set", index=links.index_of(netlink, name), state="up")


@asynccontextmanager
async def raw_guest(pair: Pair, ip: str) -> AsyncIterator[socket.socket]:
    """What is sent here enters the left host as frames of a guest of that address."""
    inside = pair.left.attached.node.namespace
    await inside.netlink(make_veth)
    pair.left.bind("near", ip)
    with await inside.socket(socket.SOCK_RAW, socket.AF_PACKET) as link:
        link.bind(("far", 0x0800))
        yield link


async def wait_for_drops(pair: Pair, wanted: dict[str, int]) -> None:
    await wait_until(lambda: pair.drops() == wanted, lambda: f"{pair.drops()}", timeout=5)


async def test_frames_cut_short_within_the_ip_header_are_counted(pair: Pair) -> None:
    """What a test run refuses to run: Ethernet and 0 to 19 bytes."""
    sent = frame(guest("10.0.0.8"), B, udp())
    async with raw_guest(pair, "10.0.0.8") as link:
        for length in range(14, 34):
            link.send(sent[:length])
        await wait_for_drops(pair, {"TRUNCATED": 20})


async def test_a_vlan_tag_does_not_slip_through_beside_the_frame(pair: Pair) -> None:
    """The kernel takes the tag out of the bytes before the program sees them."""
    sent = frame(guest("10.0.0.8"), A, udp())
    async with raw_guest(pair, "10.0.0.8") as link:
        link.send(sent[:12] + b"\x81\x00\x00\x05" + sent[12:])
        await wait_for_drops(pair, {"UNSUPPORTED_ETHERTYPE": 1})


async def test_a_host_probes_the_gateway_over_the_underlay(pair: Pair) -> None:
    """The answer reaches the host's ordinary socket: both programs let it pass."""
    pair.gateway.heartbeat(seconds_ago=0)
    asked = bytes.fromhex("4143485001010000") + (1).to_bytes(4, "big") + bytes(4) + bytes(8)
    with await pair.left.attached.node.namespace.socket(socket.SOCK_DGRAM) as probe:
        probe.bind((OWN_VTEP, 0))
        probe.connect((GATEWAY_VTEP, 4798))
        probe.send(asked)
        async with asyncio.timeout(5):
            answer = await asyncio.get_running_loop().sock_recv(probe, 100)
    assert answer[:12] == asked[:5] + b"\x02" + asked[6:12]
    assert int.from_bytes(answer[12:16], "big") < 10_000


async def test_a_connection_goes_on_while_its_route_moves_and_comes_back(pair: Pair) -> None:
    """Generations change under traffic; no packet is lost to a stale hop."""
    pair.learn()
    async with pair.a.pinger(pair.b, interval=0.002) as pinger:
        await pinger.wait_for_replies(50)
        began = time.monotonic()
        for _ in range(5):
            pair.left.datapath.forget(B)
            await pinger.wait_for_replies(10)
            pair.left.datapath.route(B, PEER_VTEP)
            await pinger.wait_for_replies(10)
        counted = await pinger.stop()
    assert counted.lost == 0, f"after {time.monotonic() - began:.1f} s: {counted}"
    assert pair.relayed() > 0
