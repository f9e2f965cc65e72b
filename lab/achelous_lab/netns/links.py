"""Devices in namespaces: veth pairs, bridges, and bridge ports that can be switched off.

Everything here runs inside `Namespace.netlink`, in the thread that has entered the namespace.
"""

import contextlib
import errno
from enum import IntEnum, StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from socket import AF_INET6
from typing import Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from achelous_lab.netns.namespace import Namespace

UNDERLAY_MTU: Final = 1650
_NO_DAD: Final = 0x02  # IFA_F_NODAD


def index_of(netlink: IPRoute, ifname: str) -> int:
    """Raises FileNotFoundError when the namespace has no such device."""
    found = netlink.link_lookup(ifname=ifname)
    if not found:
        raise FileNotFoundError(errno.ENODEV, f"no device {ifname} in this namespace")
    return int(found[0])


class PortState(IntEnum):
    """States of a bridge port. The bridge itself leaves them alone as long as the carrier stays.

    Off is LISTENING: without STP the bridge promotes BLOCKING to FORWARDING at once.
    """

    OFF = 1
    ON = 3


def add_bridge(netlink: IPRoute, name: str, mtu: int) -> int:
    """A bridge that is up; returns its index."""
    netlink.link("add", ifname=name, kind="bridge", mtu=mtu, br_mcast_snooping=0)
    index = index_of(netlink, name)
    netlink.link("set", index=index, state="up")
    return index


class BridgeFirewall(StrEnum):
    """Whether the namespace's firewall looks at what passes its bridges."""

    OFF = "0"
    ON = "1"


def set_bridge_firewall(state: BridgeFirewall) -> None:
    """Of this namespace; without effect on a kernel without bridge netfilter."""
    for family in ("ip", "ip6", "arp"):
        setting = Path(f"/proc/sys/net/bridge/bridge-nf-call-{family}tables")
        with contextlib.suppress(FileNotFoundError):
            setting.write_text(state)


def add_port(
    netlink: IPRoute, port: str, *, bridge: int, far: Namespace, far_name: str, mtu: int
) -> None:
    """A veth pair: `port` on the bridge here, `far_name` in the other namespace; both are up.

    It may take the kernel up to a second to see the carrier, and to let packets pass.
    """
    with far.opened() as fd:
        peer = {"ifname": far_name, "net_ns_fd": fd, "mtu": mtu}
        netlink.link("add", ifname=port, kind="veth", mtu=mtu, peer=peer)
    netlink.link("set", index=index_of(netlink, port), master=bridge, state="up")


def set_port(netlink: IPRoute, port: str, state: PortState) -> None:
    """Let the port pass packets, or none; its carrier stays as it is."""
    index = index_of(netlink, port)
    netlink.link("set", index=index, kind="bridge_slave", IFLA_BRPORT_STATE=int(state))


def forget_macs(netlink: IPRoute, bridge: str) -> None:
    """Make the bridge flood until it has learned anew who is where."""
    netlink.link("set", index=index_of(netlink, bridge), kind="bridge", br_fdb_flush=True)


def remove_link(netlink: IPRoute, name: str) -> None:
    """Remove a device, and with a veth its other end; nothing happens when there is none."""
    with contextlib.suppress(FileNotFoundError, NetlinkError):
        netlink.link("del", index=index_of(netlink, name))


def is_up(netlink: IPRoute, name: str) -> bool:
    """Whether the device has its carrier, and its bridge port may pass packets."""
    (link,) = netlink.get_links(index_of(netlink, name))
    return str(link.get("operstate")) == "UP"


def configure(
    netlink: IPRoute,
    name: str,
    *,
    address: IPv4Interface,
    mac: str | None = None,
    router: IPv4Address | None = None,
) -> None:
    """Bring a device up with an address, and with the default route when there is a router.

    A router outside of the device's network is taken to be on the link, as the link-local router
    of /31 and /32 subnets is.
    """
    index = index_of(netlink, name)
    if mac is not None:
        netlink.link("set", index=index, address=mac)
    netlink.link("set", index=index, state="up")
    netlink.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
    if router is not None:
        if router not in address.network:
            netlink.route("add", dst=f"{router}/32", oif=index, scope=253)
        netlink.route("add", dst="default", gateway=str(router), oif=index)


def configure6(
    netlink: IPRoute, name: str, *, address: IPv6Interface, router: IPv6Address | None = None
) -> None:
    """Give a device that is up an IPv6 address, and the default route when there is a router.

    The address can be used at once: nobody is asked whether another has it. What routers
    advertise is not heeded.
    """
    settings = Path("/proc/sys/net/ipv6/conf") / name
    (settings / "accept_ra").write_text("0")
    (settings / "disable_ipv6").write_text("0")
    index = index_of(netlink, name)
    prefix = address.network.prefixlen
    netlink.addr("add", index=index, address=str(address.ip), prefixlen=prefix, flags=_NO_DAD)
    if router is not None:
        netlink.route("add", family=AF_INET6, dst="default", gateway=str(router), oif=index)
