"""The kernel's own VXLAN device as the other end: each side takes the other's frames."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
from packets.datapath import OWN_VTEP, PEER_VTEP, VNI
from packets.frames import ROUTER, guest
from packets.hosts import Host, Hosts
from pyroute2 import IPRoute

from achelous_lab.netns import links
from achelous_lab.netns.guest import Guest, Nic
from achelous_lab.netns.kernel_vxlan import KernelVxlan
from achelous_lab.netns.network import Network

pytestmark = pytest.mark.kernel

OURS, THEIRS = "10.0.0.5", "10.0.0.9"


@dataclass(frozen=True, slots=True)
class Interop:
    """Guest `ours` behind our programs, guest `theirs` behind the kernel's bridge and VXLAN."""

    host: Host
    ours: Guest
    theirs: Guest


@pytest.fixture
async def interop(network: Network, objects: Path) -> AsyncIterator[Interop]:
    with Hosts(network, objects) as hosts:
        host = await hosts.host("ours", OWN_VTEP, peers={PEER_VTEP: 1})
        ours, _ = await host.guest("g-ours", OURS)
        host.datapath.route(THEIRS, PEER_VTEP)
        yield Interop(host, ours, await kernel_guest(network))


async def kernel_guest(network: Network) -> Guest:
    """Its ARP would find nobody to answer, as we flood nothing: it is told what it needs."""
    node = await network.underlay.node("kernel", IPv4Address(PEER_VTEP))
    segment = KernelVxlan(node, VNI)
    await segment.create()
    await segment.add_mac(guest(OURS).mac, IPv4Address(OWN_VTEP))
    made = await network.guest("g-theirs")
    cable = await made.add_nic(
        network.cables, Nic(guest(THEIRS).mac, IPv4Interface(f"{THEIRS}/24"))
    )
    await cable.plug(node.namespace, "v-theirs")
    await segment.attach("v-theirs")

    def tell(netlink: IPRoute) -> None:
        index = links.index_of(netlink, "eth0")
        netlink.neigh("add", dst=OURS, lladdr=guest(OURS).mac, ifindex=index)

    await made.namespace.netlink(tell)
    return made


async def test_ping_both_ways(interop: Interop) -> None:
    assert (await interop.ours.ping(interop.theirs, count=3)).received == 3
    assert (await interop.theirs.ping(interop.ours, count=3)).received == 3


@pytest.mark.parametrize("sender", ["ours", "theirs"])
async def test_tcp_both_ways_with_offloads(interop: Interop, sender: str) -> None:
    pair = {"ours": interop.ours, "theirs": interop.theirs}
    other = pair["theirs" if sender == "ours" else "ours"]
    result = await pair[sender].iperf3(other, seconds=1)
    assert result.bits_per_second > 5e8


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
