"""The kernel's own VXLAN device as the other end: each side takes the other's frames, of both
families, whatever devices leave to others."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from typing import Any

import pytest
from packets.datapath import OWN_VTEP, PEER_VTEP, VNI, Port, Rule
from packets.frames import ROUTER, guest
from packets.hosts import Host, Hosts, Programs, ip6_of
from pyroute2 import IPRoute
from wire_traffic import set_offloads, transfer

from achelous_lab.netns import links
from achelous_lab.netns.guest import Guest, Nic
from achelous_lab.netns.kernel_vxlan import KernelVxlan
from achelous_lab.netns.network import Network
from achelous_lab.netns.underlay import UNDERLAY_DEVICE, Node
from achelous_lab.process import run

pytestmark = pytest.mark.kernel

OURS, THEIRS = "10.0.0.5", "10.0.0.9"
OUR_GROUPS, THEIR_GROUPS = 5, 77  # identities
ADDRESSES = [(OURS, THEIRS), (ip6_of(OURS), ip6_of(THEIRS))]
MARKS = f"""
table bridge marks {{
  counter ours {{ }}
  chain from_guest {{
    type filter hook prerouting priority 0;
    iifname "v-theirs" meta mark set {THEIR_GROUPS}
  }}
  chain to_guest {{
    type filter hook forward priority 0;
    oifname "v-theirs" meta mark {OUR_GROUPS} counter name ours
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Interop:
    """Guest `ours` behind our programs, guest `theirs` behind the kernel's bridge and VXLAN."""

    host: Host
    node: Node
    ours: Guest
    port: Port
    theirs: Guest

    async def set_offloads(self, state: str) -> None:
        """On the guests' devices and on those of the underlay."""
        for made in (self.ours, self.theirs):
            await set_offloads(made.namespace, "eth0", state)
        for node in (self.host.attached.node, self.node):
            await set_offloads(node.namespace, UNDERLAY_DEVICE, state)

    async def transfer_both_ways(self, ours: str, theirs: str) -> None:
        """A connection from each side, some megabytes forth and back on each."""
        await transfer(self.ours, self.theirs, theirs)
        await transfer(self.theirs, self.ours, ours)


@pytest.fixture
async def interop(
    network: Network, programs: Programs, request: pytest.FixtureRequest
) -> AsyncIterator[Interop]:
    """The parameter, if there is one: whether the kernel's device carries group policies."""
    with Hosts(network, programs) as hosts:
        host = await hosts.host("ours", OWN_VTEP, peers={PEER_VTEP: 1})
        ours, port = await our_guest(network, host)
        for ip in (THEIRS, ip6_of(THEIRS)):
            host.datapath.route(ip, PEER_VTEP, mac=guest(THEIRS).mac)
        node = await network.underlay.node("kernel", IPv4Address(PEER_VTEP))
        segment = KernelVxlan(node, VNI, group_policy=getattr(request, "param", False))
        theirs = await kernel_guest(network, node, segment)
        yield Interop(host, node, ours, port, theirs)


async def our_guest(network: Network, host: Host) -> tuple[Guest, Port]:
    made = await network.guest("g-ours")
    cable = await made.add_nic(network.cables, nic_of(OURS))
    await cable.plug(host.attached.node.namespace, "v-ours")
    return made, host.bind("v-ours", OURS, ip6=ip6_of(OURS))


def nic_of(ip: str) -> Nic:
    return Nic(guest(ip).mac, IPv4Interface(f"{ip}/24"), address6=IPv6Interface(f"{ip6_of(ip)}/64"))


async def kernel_guest(network: Network, node: Node, segment: KernelVxlan) -> Guest:
    """Who is where it is told: nobody would answer it, as we flood nothing."""
    await segment.create()
    await segment.add_mac(guest(OURS).mac, IPv4Address(OWN_VTEP))
    made = await network.guest("g-theirs")
    cable = await made.add_nic(network.cables, nic_of(THEIRS))
    await cable.plug(node.namespace, "v-theirs")
    await segment.attach("v-theirs")

    def tell(netlink: IPRoute) -> None:
        index = links.index_of(netlink, "eth0")
        for ip, family in ((OURS, 2), (ip6_of(OURS), 10)):
            netlink.neigh("add", dst=ip, lladdr=guest(OURS).mac, ifindex=index, family=family)

    await made.namespace.netlink(tell)
    return made


async def test_ping_both_ways(interop: Interop) -> None:
    """Small ones, and fragments."""
    for ours, theirs in ADDRESSES:
        for sender, target in ((interop.ours, theirs), (interop.theirs, ours)):
            for size in ("56", "4000"):
                assert "3 received" in await ping(sender, target, "-s", size)


async def ping(sender: Guest, target: str, *options: str) -> str:
    """What ping says."""
    argv = ["ping", "-n", "-c", "3", "-i", "0.05", "-W", "1", *options, target]
    return (await run(argv, netns=sender.name, timeout=15, check=False)).stdout.decode()


@pytest.mark.parametrize("offloads", ["on", "off"])
async def test_tcp_both_ways(interop: Interop, offloads: str) -> None:
    await interop.set_offloads(offloads)
    for ours, theirs in ADDRESSES:
        await interop.transfer_both_ways(ours, theirs)


@pytest.mark.parametrize("sender", ["ours", "theirs"])
async def test_tcp_at_speed_with_offloads(interop: Interop, sender: str) -> None:
    pair = {"ours": interop.ours, "theirs": interop.theirs}
    other = pair["theirs" if sender == "ours" else "ours"]
    result = await pair[sender].iperf3(other, seconds=1)
    assert result.bits_per_second > 5e8


@pytest.mark.parametrize("interop", [True], indirect=True, ids=["gbp"])
async def test_group_policies_both_ways(interop: Interop) -> None:
    """A mark of the kernel's is an identity that our rules know, and our identity a mark there."""
    into = [Rule(remote, identities=(THEIR_GROUPS,)) for remote in ("0.0.0.0/0", "::/0")]
    interop.host.datapath.allow(interop.port, into=into)
    table: Any = interop.host.datapath.table("ports").mmap()[interop.port.slot]
    table["identity"] = OUR_GROUPS
    for ours, _ in ADDRESSES:
        assert "0 received" in await ping(interop.theirs, ours, "-W", "0.2")

    await nft(interop.node, MARKS)

    for ours, theirs in ADDRESSES:
        assert "3 received" in await ping(interop.theirs, ours)
        await interop.transfer_both_ways(ours, theirs)
    counted = await nft(interop.node, "list counter bridge marks ours")
    [packets] = re.findall(r"packets (\d+)", counted)
    assert int(packets) > 100


async def nft(node: Node, commands: str) -> str:
    """Runs nftables' commands in a node."""
    return (await run(["nft", commands], netns=node.name, timeout=5)).stdout.decode()


async def test_the_kernel_sees_the_macs_that_it_expects(interop: Interop) -> None:
    """Theirs sees our guest's own MAC, ours sees the router's."""
    async with interop.theirs.serve_http(8080) as url:
        assert (await interop.ours.curl(url)).ok
    learned = await interop.theirs.namespace.netlink(
        lambda n: [neighbour.get_attr("NDA_LLADDR") for neighbour in n.get_neighbours()]
    )
    assert guest(OURS).mac in learned
    seen = await interop.ours.namespace.netlink(
        lambda n: [neighbour.get_attr("NDA_LLADDR") for neighbour in n.get_neighbours(dst=THEIRS)]
    )
    assert seen == [ROUTER]
