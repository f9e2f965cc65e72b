"""Frames as guests and the underlay send them, built once with scapy; the rest are bytes."""

from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from typing import Any, Final

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN

from achelous_shared.names import ROUTER_MAC

ROUTER: Final = ROUTER_MAC.hex(":")
BROADCAST: Final = "ff:ff:ff:ff:ff:ff"
UNDERLAY_MACS: Final = ("02:00:00:00:aa:01", "02:00:00:00:aa:02")  # destination, source
NO_ADDRESS: Final = "0.0.0.0"  # noqa: S104 - the sender of an address probe, nothing is bound
PAYLOAD: Final = b"achelous"

ETHERNET: Final = 14
OUTER: Final = 50


@dataclass(frozen=True, slots=True)
class Guest:
    """Who a guest is: its address and MAC."""

    ip: str
    mac: str


def guest(ip: str) -> Guest:
    """A guest of that address; its MAC ends like the address."""
    return Guest(ip, (b"\x02\x0a" + ip_address(ip).packed[-4:]).hex(":"))


def frame(sender: Guest, to: str, *layers: Any, dst: str = ROUTER, **ip: Any) -> bytes:
    """A frame as `sender` emits it. `ip`: fields of the IPv4 or IPv6 header."""
    header = IPv6 if ":" in sender.ip else IP
    packet = Ether(dst=dst, src=sender.mac) / header(src=sender.ip, dst=to, **ip)
    for layer in layers:
        packet /= layer
    return bytes(packet)


def udp(sport: int = 1000, dport: int = 2000, payload: bytes = PAYLOAD) -> Any:
    return UDP(sport=sport, dport=dport) / payload


def tcp(flags: str = "S", sport: int = 1000, dport: int = 80, payload: bytes = b"") -> Any:
    return TCP(sport=sport, dport=dport, flags=flags) / payload


def ping(identifier: int = 7, *, reply: bool = False) -> Any:
    return ICMP(type=0 if reply else 8, id=identifier, seq=1) / PAYLOAD


def ping6(identifier: int = 7, *, reply: bool = False) -> Any:
    return (ICMPv6EchoReply if reply else ICMPv6EchoRequest)(id=identifier, seq=1, data=PAYLOAD)


def delivered(sent: bytes, to: Guest) -> bytes:
    """`sent` as guest `to` shall see it: from the router's MAC to its own."""
    return bytes.fromhex(to.mac.replace(":", "")) + ROUTER_MAC + sent[12:]


def on_the_wire(sent: bytes, *, vteps: tuple[str, str], vni: int, dmac: str, sport: int) -> bytes:
    """`sent` with outer headers from the first VTEP to the second, before redirect_neigh gives
    it an outer Ethernet header: until then it carries the guest's own."""
    six = sent[12:14] == b"\x86\xdd"
    tos = int.from_bytes(sent[14:16], "big") >> 4 & 0xFF if six else sent[15]
    outer = IP(src=vteps[0], dst=vteps[1], id=0, flags="DF", ttl=64, tos=tos)
    inner = bytes.fromhex(dmac.replace(":", "")) + sent[6:]
    vxlan = VXLAN(flags=0x08, vni=vni)
    return (
        sent[:12]
        + b"\x08\x00"
        + bytes(outer / UDP(sport=sport, dport=4789, chksum=0) / vxlan / inner)
    )


def source_port(sent: bytes) -> int:
    """The outer UDP source port of a frame on the wire."""
    return int.from_bytes(sent[ETHERNET + 20 : ETHERNET + 22], "big")


def vtep_of(sent: bytes) -> str:
    """The outer destination of a frame on the wire."""
    return str(IPv4Address(sent[ETHERNET + 16 : ETHERNET + 20]))


def vxlan(
    inner: bytes,
    *,
    vteps: tuple[str, str],
    vni: int,
    dmac: str,
    flags: int = 0x08,
    identity: int = 0,
    **outer: Any,
) -> bytes:
    """A frame of the underlay that carries `inner` to `dmac`. `outer`: fields of its IPv4.

    `identity`: in the group policy field, whose flag G is only set when it is not 0."""
    ether = Ether(dst=UNDERLAY_MACS[0], src=UNDERLAY_MACS[1])
    header = IP(src=vteps[0], dst=vteps[1], id=0, flags="DF", **{"ttl": 64} | outer)
    policy = {"flags": flags | 0x80, "gpid": identity} if identity else {"flags": flags}
    tunnel = UDP(sport=50_000, dport=4789, chksum=0) / VXLAN(vni=vni, **policy)
    return bytes(ether / header / tunnel / (bytes.fromhex(dmac.replace(":", "")) + inner[6:]))


def arp_request(sender: Guest, target: str, **fields: Any) -> bytes:
    """Who has `target`? `fields`: of the ARP message, to be wrong in."""
    message = ARP(op=1, hwsrc=sender.mac, psrc=sender.ip, pdst=target)
    for name, value in fields.items():
        setattr(message, name, value)
    return bytes(Ether(dst=BROADCAST, src=sender.mac) / message)


def arp_reply(asker: Guest, target: str, psrc: str | None = None) -> bytes:
    """`target` is at the router's MAC, says the frame that comes back to `asker`."""
    message = ARP(
        op=2, hwsrc=ROUTER, psrc=target, hwdst=asker.mac, pdst=asker.ip if psrc is None else psrc
    )
    return bytes(Ether(dst=asker.mac, src=ROUTER) / message)
