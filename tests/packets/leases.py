"""What guests ask of DHCP and of routers, and what they shall be told, built with scapy."""

from collections.abc import Sequence
from ipaddress import IPv6Address
from typing import Any, Final
from uuid import UUID

from packets.datapath import VNI, Datapath
from packets.datapath import Port as Bound
from packets.frames import BROADCAST, NO_ADDRESS, Guest
from packets.tables import mac_bytes
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from achelous_shared.messages import Port
from achelous_shared.names import ROUTER_LINK_LOCAL, ROUTER_MAC
from achelous_shared.routes import ip_bytes
from achelous_vswitch import lease
from achelous_vswitch.lease import Lease

ROUTER: Final = ROUTER_MAC.hex(":")
XID: Final = 0x1234ABCD
EVERYONE: Final = "255.255.255.255"
LINK_LOCAL: Final = "fe80::a:a00:5"


def desired(guest: Guest, **fields: Any) -> Port:
    """A vNIC of 10.0.0.0/24 and fd00:1::/64 as a host's document describes it."""
    base: dict[str, Any] = {
        "vnic_id": UUID(int=1), "instance_id": UUID(int=2), "vni": VNI, "revision": 1,
        "mac": mac_bytes(guest.mac), "ip": ip_bytes(guest.ip), "prefix_len": 120,
        "router": ip_bytes("10.0.0.1"), "mtu": 1450, "security_groups": (),
        "ip6": ip_bytes("fd00:1::5"), "router6": ip_bytes("fd00:1::1"), "prefix_len6": 64,
        "dns": (ip_bytes("10.0.0.53"), ip_bytes("fd00:1::53")), "lease_s": 800,
        "hostname": "web-1",
    }  # fmt: skip
    return Port(**(base | fields))


def bind(datapath: Datapath, port: Port, guest: Guest) -> Bound:
    """The vNIC on this host, as the agent writes it."""
    made = datapath.port(
        guest.ip,
        router=port.router,
        prefix_len=port.prefix_len,
        ip6=str(IPv6Address(port.ip6)) if port.ip6 else None,
        router6=port.router6 or bytes(16),
        prefix_len6=port.prefix_len6,
    )
    give(datapath, made, lease.lease_of(port))
    return made


def give(datapath: Datapath, bound: Bound, told: Lease) -> None:
    lease.write(datapath.table("leases").mmap()[bound.slot], told)


# ---- DHCP ----------------------------------------------------------------------------------------


def dhcp(
    guest: Guest,
    content: Sequence[Any],
    *,
    to: str = EVERYONE,
    source: str = NO_ADDRESS,
    udp: dict[str, Any] | None = None,
    **bootp: Any,
) -> bytes:
    """A request of the guest. `bootp`: fields of the message."""
    chaddr = mac_bytes(guest.mac) + bytes(10)
    message = BOOTP(**({"op": 1, "xid": XID, "chaddr": chaddr} | bootp))
    datagram = UDP(**({"sport": 68, "dport": 67} | (udp or {})))
    ether = Ether(dst=BROADCAST if to == EVERYONE else ROUTER, src=guest.mac)
    return bytes(ether / IP(src=source, dst=to) / datagram / message / DHCP(options=list(content)))


def told(
    guest: Guest, options: Sequence[Any], *, to: str, server: str = "10.0.0.1", **bootp: Any
) -> bytes:
    """A reply of the host."""
    chaddr = mac_bytes(guest.mac) + bytes(10)
    message = BOOTP(**({"op": 2, "xid": XID, "chaddr": chaddr} | bootp))
    head = Ether(dst=guest.mac, src=ROUTER) / IP(src=server, dst=to, id=0, ttl=64)
    return bytes(head / UDP(sport=67, dport=68) / message / DHCP(options=list(options)))


# ---- IPv6 ----------------------------------------------------------------------------------------


def to_all(guest: Guest, target: str, *layers: Any, source: str = LINK_LOCAL, **ip: Any) -> bytes:
    """A frame of the guest by IPv6. `ip`: fields of the IPv6 header."""
    packet = Ether(src=guest.mac, dst="33:33:00:00:00:02") / IPv6(
        **({"src": source, "dst": target, "hlim": 255} | ip)
    )
    for layer in layers:
        packet /= layer
    return bytes(packet)


def from_router(guest: Guest, *layers: Any, to: str = LINK_LOCAL) -> bytes:
    """A frame to the guest from the router's link-local address."""
    packet = Ether(src=ROUTER, dst=guest.mac) / IPv6(src=ROUTER_LINK_LOCAL, dst=to, hlim=255)
    for layer in layers:
        packet /= layer
    return bytes(packet)
