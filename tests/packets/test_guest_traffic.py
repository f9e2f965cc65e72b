"""What guests' ordinary software does, on real devices, by both families."""

import asyncio
import errno
import re
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial

import pytest
from packets.datapath import VNI, Port
from packets.frames import Guest as Known
from packets.frames import frame, guest, udp
from packets.hosts import Hosts, Programs
from packets.pairs import Pair, ip6_of, router_of
from wire_traffic import Datagrams, set_offloads, transfer

from achelous_lab.netns.guest import Guest
from achelous_lab.netns.network import Network
from achelous_lab.process import run
from achelous_lab.waiting import wait_until

pytestmark = pytest.mark.kernel

A, B, C = "10.0.0.5", "10.0.1.6", "10.0.1.7"
FAMILIES = pytest.mark.parametrize("address", [str, ip6_of], ids=["IPv4", "IPv6"])
MTU_DISCOVER = {socket.AF_INET: (socket.IPPROTO_IP, 10), socket.AF_INET6: (socket.IPPROTO_IPV6, 23)}
PATH_MTU = {socket.AF_INET: (socket.IPPROTO_IP, 14), socket.AF_INET6: (socket.IPPROTO_IPV6, 24)}
NEVER, ALWAYS = 0, 2  # to set DF, or not to fragment
SMALL_PATH = 1400


@dataclass(frozen=True, slots=True)
class World:
    """Guest `a` on the left host; in another subnet, `b` on the right one, and `c` beside `a`."""

    pair: Pair
    a: Guest
    b: Guest
    c: Guest


@pytest.fixture
async def world(network: Network, programs: Programs) -> AsyncIterator[World]:
    with Hosts(network, programs) as hosts:
        pair = await Pair.create(hosts, network)
        a = await pair.guest("a", pair.left, A)
        b = await pair.guest("b", pair.right, B)
        yield World(pair, a, b, await pair.guest("c", pair.left, C))


def learn(world: World) -> None:
    for ip in (A, B):
        world.pair.learn(ip)


@pytest.mark.parametrize("offloads", ["on", "off"])
async def test_tcp_carries_what_was_sent(world: World, offloads: str) -> None:
    """Through the gateway, between hosts, and on one host."""
    for made in (world.a, world.b, world.c):
        await set_offloads(made.namespace, "eth0", offloads)
    for address in (str, ip6_of):
        await transfer(world.a, world.b, address(B))
        await transfer(world.a, world.c, address(C))
    learn(world)
    for address in (str, ip6_of):
        await transfer(world.a, world.b, address(B))
    assert world.pair.drops() == {}


async def test_udp_above_the_mtu_without_df_is_fragmented(world: World) -> None:
    learn(world)
    for server, ip in ((world.b, B), (world.c, C), (world.b, ip6_of(B)), (world.c, ip6_of(C))):
        with await Datagrams.open(world.a, server, ip) as datagrams:
            datagrams.near.setsockopt(*MTU_DISCOVER[datagrams.near.family], NEVER)
            for size in (1473, 4000, 60_000):
                await datagrams.carry(size)
    assert world.pair.drops() == {}


@FAMILIES
async def test_udp_above_the_mtu_with_df_is_refused(
    world: World, address: Callable[[str], str]
) -> None:
    """At once above the guest's own MTU, and from the second one on above the path's, which the
    first one learns; what fits passes, and so does what may be fragmented."""
    learn(world)
    for host in (world.pair.left, world.pair.right):
        host.datapath.configure(underlay_mtu=SMALL_PATH + 50)
    with await Datagrams.open(world.a, world.b, address(B)) as datagrams:
        near = datagrams.near
        near.setsockopt(*MTU_DISCOVER[near.family], ALWAYS)
        assert refused(near, 1500)
        assert not refused(near, 1420)
        await wait_until(lambda: path_mtu(near) == SMALL_PATH, "the path's MTU", timeout=5)
        near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # the router's answer to the first one
        assert refused(near, 1420)
        assert world.pair.drops().keys() == {"TOO_BIG"}
        await datagrams.carry(SMALL_PATH - (28 if near.family == socket.AF_INET else 48))
        near.setsockopt(*MTU_DISCOVER[near.family], NEVER)
        with await Datagrams.open(world.b, world.a, address(A), port=7201) as back:
            back.near.send(bytes(1420))  # lost, but the other side knows the MTU then
            await wait_until(lambda: "TOO_BIG" in drops_of_right(world), "its loss", timeout=5)
        await datagrams.carry(1420)


def refused(sender: socket.socket, size: int) -> bool:
    """Whether the guest's own kernel says that a datagram of that size is too long."""
    try:
        sender.send(bytes(size))
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise
        return True
    return False


def path_mtu(connected: socket.socket) -> int:
    """As the guest's kernel knows it now."""
    return connected.getsockopt(*PATH_MTU[connected.family])


def drops_of_right(world: World) -> set[str]:
    counted = world.pair.right.datapath.counters().values()
    return {name for counts in counted for name, count in counts.items() if count}


@pytest.mark.parametrize("method", ["-U", "-I"], ids=["UDP", "ICMP"])
async def test_traceroute_shows_the_router_and_the_destination(world: World, method: str) -> None:
    learn(world)
    for target in (B, C, ip6_of(B), ip6_of(C)):
        router = router_of(ip6_of(A) if ":" in target else A)
        assert await traceroute(world.a, method, target) == [("1", router), ("2", target)]


async def traceroute(made: Guest, *options: str) -> list[tuple[str, str]]:
    """The number and address of each hop that answered all its three probes."""
    argv = ["traceroute", "-n", "-w", "2", "-m", "5", *options]
    said = (await run(argv, netns=made.name, timeout=30)).stdout.decode()
    return re.findall(r"^ *(\d+)  (\S+)  \S+ ms  \S+ ms  \S+ ms$", said, re.MULTILINE)


async def test_a_guest_reaches_itself_by_way_of_its_port(world: World) -> None:
    """Its kernel would not send such a frame, a raw socket does."""
    port = port_of(world.pair, A)
    with await world.a.namespace.socket(socket.SOCK_RAW, socket.AF_PACKET) as link:
        link.bind(("eth0", 0x0800))
        for ip in (A, ip6_of(A)):
            before = received(world.pair, port)
            link.send(frame(Known(ip, guest(A).mac), ip, udp()))
            await wait_until(partial(came, world.pair, port, before + 1), "its return", timeout=5)


def came(pair: Pair, port: Port, packets: int) -> bool:
    return received(pair, port) >= packets


def port_of(pair: Pair, ip: str, vni: int = VNI) -> Port:
    return next(port for port in pair.left.datapath.ports if (port.guest.ip, port.vni) == (ip, vni))


def received(pair: Pair, port: Port) -> int:
    return pair.left.datapath.counters()[port.slot]["rx_packets"]


async def test_a_guest_with_vnics_in_many_subnets_and_vpcs(
    network: Network, programs: Programs
) -> None:
    """Each carries the traffic of its own network and nothing of the others': one peer for each,
    all at once, and what was counted where."""
    places = [("10.0.0.5", VNI), ("10.0.2.5", VNI), ("10.0.3.5", VNI + 1), ("10.0.4.5", VNI + 2)]
    with Hosts(network, programs) as hosts:
        pair = await Pair.create(hosts, network)
        many = await network.guest("many")
        peers: list[tuple[Guest, str]] = []
        for number, (ip, vni) in enumerate(places):
            await pair.add_nic(many, pair.left, ip, vni=vni)
            peer = await network.guest(f"p{number}")
            peer_ip = f"{ip.removesuffix('5')}6"
            await pair.add_nic(peer, pair.right, peer_ip, vni=vni)
            peers.append((peer, peer_ip))
            pair.learn(ip, vni=vni)
            pair.learn(peer_ip, vni=vni)
        for address in (str, ip6_of):
            await asyncio.gather(
                *(transfer(many, peer, address(ip), size=1 << 20) for peer, ip in peers)
            )
        for (ip, vni), (peer, _) in zip(places, peers, strict=True):
            before = [received(pair, port) for port in pair.left.datapath.ports]
            argv = ["ping", "-n", "-c", "3", "-i", "0.05", "-W", "1", ip]
            assert b"3 received" in (await run(argv, netns=peer.name, timeout=10)).stdout
            after = [received(pair, port) for port in pair.left.datapath.ports]
            gained = {
                port: now - then
                for port, then, now in zip(pair.left.datapath.ports, before, after, strict=True)
                if now != then
            }
            assert gained == {port_of(pair, ip, vni): 3}
        assert pair.drops() == {}
