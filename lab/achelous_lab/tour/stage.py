"""Where the tour takes place: two tenants with the same addresses, eight guests on three hosts."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import IPv4Interface
from typing import Final

from achelous_lab.api import Object, Rule
from achelous_lab.netns.guest import Guest, Nic
from achelous_lab.netns.kernel_vxlan import KernelVxlan
from achelous_lab.netns.network import Network
from achelous_lab.netns.underlay import UNDERLAY_NETWORK, Node
from achelous_lab.platform import Instance, Lab, Tenant

CIDR: Final = "10.0.0.0/24"
_RED: Final = {"red1": 0, "red2": 1, "red3": 2, "red4": 0}
_BLUE: Final = {"blue1": 0, "blue2": 1, "blue3": 2, "blue4": 1}
"""Guest and the number of its host. Numbers give addresses: red2 and blue2 are both 10.0.0.12."""


@dataclass(frozen=True, slots=True)
class Project:
    """A tenant with one VPC and subnet, and a security group that admits everything."""

    tenant: Tenant
    vpc: Object
    subnet: Object
    open_group: Object


@dataclass(frozen=True, slots=True)
class Stage:
    """The platform with its guests, by name."""

    lab: Lab
    red: Project
    blue: Project
    guests: dict[str, Instance]

    def __getitem__(self, name: str) -> Guest:
        return self.guests[name].guest

    async def relayed_by_gateways(self) -> int:
        """Packets that all gateways together have relayed so far."""
        total = 0
        for gateway in self.lab.gateways:
            if gateway.agent.running:
                shown = await self.lab.api.get(f"/gateways/{gateway.id}/tables")
                total += shown["relayed_packets"]
        return total

    async def knows(self, source: str, target: str) -> bool:
        """Whether the FC of the source's host has the target's address."""
        shown = await self.lab.api.get(f"/hosts/{self.guests[source].host.id}/vswitch")
        return any(entry["ip"] == str(self[target].ip) for entry in shown["fc"])


async def build(lab: Lab) -> Stage:
    """Create both tenants and their guests through the API; returns when all are ACTIVE."""
    red, blue = await _project(lab, "red"), await _project(lab, "blue")
    guests: dict[str, Instance] = {}
    for project, placed in ((red, _RED), (blue, _BLUE)):
        for number, (name, host) in enumerate(placed.items(), start=1):
            guests[name] = await lab.instance(
                project.tenant,
                project.subnet,
                name,
                host=lab.hosts[host],
                ip=f"10.0.0.{10 + number}",
                groups=[project.open_group],
                wait=False,
            )
    for instance in guests.values():
        await lab.api.wait_active(str(instance.id))
    return Stage(lab, red, blue, guests)


async def _project(lab: Lab, name: str) -> Project:
    tenant = await lab.tenant(name)
    vpc = await tenant.vpc(name)
    subnet = await tenant.subnet(vpc, CIDR)
    return Project(tenant, vpc, subnet, await tenant.security_group(vpc, "open", Rule()))


async def kernel_nodes(network: Network) -> list[Node]:
    """Two machines for `kernel_pair`."""
    first = UNDERLAY_NETWORK.network_address + 0x0301
    return [await network.underlay.node(f"k{n + 1}", first + n) for n in (0, 1)]


async def kernel_pair(
    network: Network, nodes: Sequence[Node], stack: AsyncExitStack
) -> tuple[Guest, Guest]:
    """Two guests joined by the kernel's bridge and VXLAN, each on one of two nodes."""
    guests = []
    for number, (node, other) in enumerate(zip(nodes, reversed(nodes), strict=True), start=1):
        segment = KernelVxlan(node, vni=99)
        await segment.create()
        await segment.flood_to(other.ip)
        guest = await network.guest(f"kernel{number}")
        nic = Nic(mac=f"02:00:00:00:99:{number:02x}", address=IPv4Interface(f"10.99.0.{number}/24"))
        cable = await guest.add_nic(network.cables, nic)
        await cable.plug(node.namespace, f"tap{number}")
        await segment.attach(f"tap{number}")
        guests.append(guest)
        stack.push_async_callback(network.remove_guest, guest)
    return guests[0], guests[1]
