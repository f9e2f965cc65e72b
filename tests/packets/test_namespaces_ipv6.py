"""IPv6 and forwarding guests on real devices, offloads on: two hosts, both knowing all routes."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv4Interface

import pytest
from packets.datapath import OWN_VTEP, PEER_VTEP, VNI
from packets.frames import ROUTER, guest
from packets.hosts import Host, Hosts, Programs, ip6_of
from pyroute2 import IPRoute

from achelous_lab.netns import links
from achelous_lab.netns.guest import Guest, Nic
from achelous_lab.netns.network import Network
from achelous_lab.process import run
from achelous_lab.waiting import wait_until

pytestmark = pytest.mark.kernel

A, B = "10.0.0.5", "10.0.0.6"
FLEET = {OWN_VTEP: 1, PEER_VTEP: 1}
UNASKED = ("MULTICAST", "PORT_NOT_READY")
BEHIND = VNI + 1  # the VPC on the other side of a middlebox


@dataclass(frozen=True, slots=True)
class World:
    """Two hosts in namespaces."""

    network: Network
    left: Host
    right: Host

    def drops(self) -> dict[str, int]:
        """Drops of both hosts. Left out: guests' multicasts, and solicitations of a router, for
        which these hosts have no answer prepared."""
        found: dict[str, int] = {}
        for host in (self.left, self.right):
            for counts in host.datapath.counters().values():
                for name, count in counts.items():
                    if name.isupper() and name not in UNASKED and count:
                        found[name] = found.get(name, 0) + count
        return found


@pytest.fixture
async def world(network: Network, programs: Programs) -> AsyncIterator[World]:
    with Hosts(network, programs) as hosts:
        left = await hosts.host("left", OWN_VTEP, peers=FLEET)
        right = await hosts.host("right", PEER_VTEP, peers=FLEET)
        yield World(network, left, right)


def learn(host: Host, ip: str, vtep: str, vni: int = VNI) -> None:
    """The host knows both addresses of the guest with that IPv4 address."""
    for address in (ip, ip6_of(ip)):
        host.datapath.route(address, vtep, vni=vni, mac=guest(ip).mac)


async def set_sysctl(made: Guest, name: str, value: int) -> None:
    """Of the guest's own network stack."""
    argv = ["sh", "-c", f"echo {value} > /proc/sys/net/{name}"]
    await run(argv, netns=made.name, timeout=5)


async def add_ipv6(made: Guest, ip: str) -> None:
    """Give the guest its IPv6 address, and wait until it found that nobody else has it."""

    def add(netlink: IPRoute) -> None:
        index = links.index_of(netlink, "eth0")
        netlink.addr("add", index=index, address=ip6_of(ip), prefixlen=64)
        netlink.route("add", dst="default", gateway="fd00::1", oif=index, family=10)

    def states(netlink: IPRoute) -> list[int]:
        index = links.index_of(netlink, "eth0")
        return [int(one["flags"]) for one in netlink.get_addr(family=10, index=index)]

    await set_sysctl(made, "ipv6/conf/eth0/disable_ipv6", 0)
    await made.namespace.netlink(add)
    tentative, failed = 0x40, 0x08
    flags: list[int] = []

    async def settled() -> bool:
        flags[:] = await made.namespace.netlink(states)
        return all(not flag & tentative for flag in flags)

    await wait_until(settled, lambda: f"addresses to settle: {flags}", timeout=10)
    assert not any(flag & failed for flag in flags)


async def ping6(made: Guest, target: str, *options: str) -> str:
    """What ping says, by IPv6."""
    return await ping(made, target, "-6", *options)


async def ping(made: Guest, target: str, *options: str) -> str:
    """What ping says."""
    argv = ["ping", "-n", "-c", "3", "-i", "0.05", "-W", "1", *options, target]
    return (await run(argv, netns=made.name, timeout=15, check=False)).stdout.decode()


async def throughput(client: Guest, server: Guest, target: str, *options: str) -> float:
    """Bits a second that one TCP stream reaches."""
    listening = server.process(
        "iperf3", ["iperf3", "-s", "-1", "--forceflush"], says="Server listening"
    )
    async with listening:
        argv = ["iperf3", "-c", target, "-t", "1", "-J", "--connect-timeout", "3000", *options]
        done = await run(argv, netns=client.name, timeout=15, check=False)
    result = json.loads(done.stdout)
    assert "error" not in result, result["error"]
    return float(result["end"]["sum_received"]["bits_per_second"])


async def test_ipv6_between_hosts_at_speed(world: World) -> None:
    a, port = await world.left.guest("a", A)
    b, _ = await world.right.guest("b", B)
    learn(world.left, B, PEER_VTEP)
    learn(world.right, A, OWN_VTEP)
    await asyncio.gather(add_ipv6(a, A), add_ipv6(b, B))
    assert "3 received" in await ping6(a, ip6_of(B))
    assert "3 received" in await ping6(a, ip6_of(B), "-s", "4000")
    assert "3 received" in await ping6(a, "fd00::1")
    assert await throughput(a, b, ip6_of(B)) > 1e9
    assert world.drops() == {}
    counted = world.left.datapath.counters()[port.slot]
    assert counted["tx_bytes"] / counted["tx_packets"] > 5000


async def test_ipv6_in_small_segments(world: World) -> None:
    a, _ = await world.left.guest("a", A)
    b, _ = await world.right.guest("b", B)
    learn(world.left, B, PEER_VTEP)
    learn(world.right, A, OWN_VTEP)
    await asyncio.gather(add_ipv6(a, A), add_ipv6(b, B))
    assert await throughput(a, b, ip6_of(B), "-M", "500") > 1e7
    assert world.drops() == {}


@pytest.mark.parametrize("family", [4, 6])
async def test_guests_learn_the_mtu_of_the_path(world: World, family: int) -> None:
    """A ping that may not be fragmented, TCP with its segments of 64 KB, UDP that is too long."""
    a, port = await world.left.guest("a", A)
    b, _ = await world.right.guest("b", B)
    learn(world.left, B, PEER_VTEP)
    learn(world.right, A, OWN_VTEP)
    world.left.datapath.configure(underlay_mtu=1450)
    target = B
    if family == 6:
        await asyncio.gather(add_ipv6(a, A), add_ipv6(b, B))
        target = ip6_of(B)
    said = await ping(a, target, f"-{family}", "-M", "do", "-s", "1420")
    assert "mtu" in said.lower()
    assert "1400" in said
    assert await throughput(a, b, target) > 5e8
    assert set(world.drops()) <= {"TOO_BIG"}
    dropped = world.left.datapath.counters()[port.slot]["TOO_BIG"]
    assert 0 < dropped < 20
    assert "3 received" in await ping(a, target, f"-{family}", "-M", "dont", "-s", "1420")


def forwards(netlink: IPRoute) -> None:
    """Between eth0, behind which A is, and eth1, behind which B is; it has neither address."""
    for device, ip in (("eth0", A), ("eth1", B)):
        index = links.index_of(netlink, device)
        for address, family, bits in ((ip, 2, 32), (ip6_of(ip), 10, 128)):
            netlink.route("add", dst=f"{address}/{bits}", oif=index, family=family, scope=253)
            netlink.neigh("add", dst=address, lladdr=ROUTER, ifindex=index, family=family)


@pytest.fixture
async def middlebox(world: World) -> Guest:
    """On the right host: as B in A's VPC, as A in B's."""
    made = await world.network.guest("m")
    for device, ip, vni in (("m0", B, VNI), ("m1", A, BEHIND)):
        nic = Nic(guest(ip).mac, IPv4Interface(f"169.254.7.{vni % 250}/32"))
        cable = await made.add_nic(world.network.cables, nic)
        await cable.plug(world.right.attached.node.namespace, f"v-{device}")
        world.right.bind(f"v-{device}", ip, vni=vni, ip6=ip6_of(ip))
    for name in ("eth0", "eth1"):
        await set_sysctl(made, f"ipv6/conf/{name}/disable_ipv6", 0)
    await made.namespace.netlink(forwards)
    for family in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        await set_sysctl(made, family, 1)
    return made


@pytest.mark.usefixtures("middlebox")
@pytest.mark.parametrize("family", [4, 6])
async def test_a_guest_that_forwards(world: World, family: int) -> None:
    """Packets that came out of a tunnel go into the next one, GSO frames included."""
    a, port = await world.left.guest("a", A)
    b = await world.network.guest("b")
    nic = Nic(guest(B).mac, IPv4Interface(f"{B}/24"))
    cable = await b.add_nic(world.network.cables, nic)
    await cable.plug(world.left.attached.node.namespace, "v-b")
    world.left.bind("v-b", B, vni=BEHIND, ip6=ip6_of(B))
    learn(world.left, B, PEER_VTEP)
    learn(world.right, A, OWN_VTEP)
    learn(world.left, A, PEER_VTEP, BEHIND)
    learn(world.right, B, OWN_VTEP, BEHIND)
    target = B
    if family == 6:
        await asyncio.gather(add_ipv6(a, A), add_ipv6(b, B))
        target = ip6_of(B)
        assert "3 received" in await ping6(a, target)
    else:
        assert (await a.ping(b)).received == 3
    assert await throughput(a, b, target) > 5e8
    assert world.drops() == {}
    counted = world.left.datapath.counters()[port.slot]
    assert counted["direct"] == counted["tx_packets"]
