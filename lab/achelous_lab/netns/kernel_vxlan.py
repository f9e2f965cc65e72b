"""The kernel's own bridge and VXLAN device on a node: to compare and to interoperate with."""

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from pyroute2 import IPRoute

from achelous_lab.netns import links
from achelous_lab.netns.cables import GUEST_MTU
from achelous_lab.netns.underlay import UNDERLAY_DEVICE, Node

VXLAN_PORT: Final = 4789
_EVERY_MAC: Final = "00:00:00:00:00:00"


@dataclass(frozen=True, slots=True)
class KernelVxlan:
    """One VXLAN segment (RFC 7348) on one node, which learns MACs from the frames that it gets.

    `group_policy`: a packet's mark goes along in the group policy field, both ways.
    """

    node: Node
    vni: int
    group_policy: bool = False

    @property
    def bridge(self) -> str:
        return f"br{self.vni}"

    @property
    def device(self) -> str:
        return f"vxlan{self.vni}"

    async def create(self) -> None:
        """Bridge and VXLAN device."""
        await self.node.namespace.netlink(self._make)

    def _make(self, netlink: IPRoute) -> None:
        bridge = links.add_bridge(netlink, self.bridge, GUEST_MTU)
        netlink.link(
            "add",
            ifname=self.device,
            kind="vxlan",
            mtu=GUEST_MTU,
            vxlan_id=self.vni,
            vxlan_local=str(self.node.ip),
            vxlan_link=links.index_of(netlink, UNDERLAY_DEVICE),
            vxlan_port=VXLAN_PORT,
            **({"vxlan_gbp": True} if self.group_policy else {}),
        )
        index = links.index_of(netlink, self.device)
        netlink.link("set", index=index, master=bridge, state="up")

    async def flood_to(self, remote: IPv4Address) -> None:
        """Send broadcasts, and frames to MACs that are not known, to this VTEP too."""
        await self._add_fdb(_EVERY_MAC, remote)

    async def add_mac(self, mac: str, remote: IPv4Address) -> None:
        """Send frames for `mac` to this VTEP."""
        await self._add_fdb(mac, remote)

    async def _add_fdb(self, mac: str, remote: IPv4Address) -> None:
        def append(netlink: IPRoute) -> None:
            index = links.index_of(netlink, self.device)
            netlink.fdb("append", ifindex=index, lladdr=mac, dst=str(remote))

        await self.node.namespace.netlink(append)

    async def attach(self, device: str) -> None:
        """Make a device of the node, such as the end of a cable, a port of the segment."""

        def attach(netlink: IPRoute) -> None:
            bridge = links.index_of(netlink, self.bridge)
            netlink.link("set", index=links.index_of(netlink, device), master=bridge)

        await self.node.namespace.netlink(attach)
