"""Two hosts and a gateway in namespaces, and guests with both families in subnets of their own."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Any, Final, Self

from packets.datapath import GATEWAY_VTEP, OWN_VTEP, PEER_VTEP, VNI
from packets.frames import guest
from packets.gateway_path import GatewayPath
from packets.hosts import Host, Hosts

from achelous_lab.netns.guest import Guest, Nic
from achelous_lab.netns.network import Network

FLEET: Final = {OWN_VTEP: 1, PEER_VTEP: 1, GATEWAY_VTEP: 2}
_UNASKED: Final = ("MULTICAST", "PORT_NOT_READY")


def ip6_of(ip: str) -> str:
    """The IPv6 address of the guest with that IPv4 address: fd00:0:0:a1::6 beside 10.0.1.6."""
    _, _, subnet, number = ip.split(".")
    return f"fd00:0:0:a{subnet}::{number}"


def router_of(ip: str) -> str:
    """The router of the /24, or /64, of a guest's address."""
    return f"{ip.rpartition('::')[0]}::1" if ":" in ip else f"{ip.rpartition('.')[0]}.1"


@dataclass(slots=True)
class Pair:
    """Hosts `left` and `right`; a guest's addresses are known to the gateway at once, and to the
    other host from `learn` on."""

    network: Network
    left: Host
    right: Host
    gateway: GatewayPath

    @classmethod
    async def create(cls, hosts: Hosts, network: Network) -> Self:
        left = await hosts.host("left", OWN_VTEP, peers=FLEET)
        right = await hosts.host("right", PEER_VTEP, peers=FLEET)
        return cls(network, left, right, await hosts.gateway("gateway"))

    async def guest(self, name: str, host: Host, ip: str, **port: Any) -> Guest:
        """A guest with one vNIC. `port`: fields of its port."""
        made = await self.network.guest(name)
        await self.add_nic(made, host, ip, router=True, **port)
        return made

    async def add_nic(
        self, made: Guest, host: Host, ip: str, *, vni: int = VNI, router: bool = False, **port: Any
    ) -> None:
        """One more vNIC; `router`: the default routes lead to its routers."""
        ip6 = ip6_of(ip)
        nic = Nic(
            guest(ip).mac,
            IPv4Interface(f"{ip}/24"),
            address6=IPv6Interface(f"{ip6}/64"),
            router=IPv4Address(router_of(ip)) if router else None,
            router6=IPv6Address(router_of(ip6)) if router else None,
        )
        device = f"v{len(made.nics)}-{made.name.rpartition('-')[2]}"
        cable = await made.add_nic(self.network.cables, nic)
        await cable.plug(host.attached.node.namespace, device)
        subnets = {
            "subnet": f"{ip.rpartition('.')[0]}.0/24",
            "subnet6": f"{router_of(ip6)[:-1]}/64",
        }
        host.bind(device, ip, vni=vni, ip6=ip6, **subnets, **port)
        for address in (ip, ip6):
            self.gateway.route(address, host.vtep, vni=vni, mac=guest(ip).mac)

    def learn(self, ip: str, *, vni: int = VNI, identity: int = 0) -> None:
        """The other host knows both addresses of the guest that has this one."""
        for host in (self.left, self.right):
            for address in (ip, ip6_of(ip)):
                if host.datapath.table("endpoints").lookup(host.datapath.address(address, vni)):
                    break
                vtep = self.left.vtep if host is self.right else self.right.vtep
                host.datapath.route(address, vtep, vni=vni, mac=guest(ip).mac, identity=identity)

    def drops(self) -> dict[str, int]:
        """Drops of both hosts, but for guests' multicasts and solicitations of routers, for which
        these hosts have no answer prepared."""
        found: dict[str, int] = {}
        for host in (self.left, self.right):
            for counts in host.datapath.counters().values():
                for name, count in counts.items():
                    if name.isupper() and name not in _UNASKED and count:
                        found[name] = found.get(name, 0) + count
        return found
