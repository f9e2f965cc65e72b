"""What a host answers on a guest's link: ARP (RFC 826, 5227) and IPv6's (RFC 4861, 4862, 3810)."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network
from struct import pack
from typing import Final

from model.reading import Drop, need, number
from model.router import ping_reply
from model.wire import ARP, HOP_BY_HOP, ICMPV6, IPV4, IPV6, ethernet, icmp, ipv6
from model.world import NOBODY, ROUTER_LINK_LOCAL, ROUTER_MAC, VNic

LINK_LOCAL_ROUTER: Final = IPv4Address("169.254.1.1")
ALL_NODES: Final = IPv6Address("ff02::1")
SOLICITED_NODE: Final = IPv6Network("ff02::1:ff00:0/104")
RS, NS, NA = 133, 135, 136
REQUEST, REPLY = 1, 2
MLD_REPORTS: Final = (131, 132, 143)


def answer_arp(vnic: VNic, frame: bytes) -> bytes | None:
    """The answer, or None where none is due."""
    message = frame[14:42]
    need(message, 28)
    if message[:6] != pack("!HHBB", 1, IPV4, 6, 4) or number(message, 6) not in (REQUEST, REPLY):
        raise Drop("BAD_ARP")
    if message[8:14] != vnic.mac:
        raise Drop("SPOOFED_MAC")
    sender, target = message[14:18], IPv4Address(message[24:28])
    if any(sender) and sender != vnic.ip4.packed:
        raise Drop("SPOOFED_IP")
    if target == vnic.ip4 or number(message, 6) == REPLY:
        return None
    if target not in (LINK_LOCAL_ROUTER, vnic.router4) and not vnic.on_link(target):
        raise Drop("BAD_ARP")
    told = message[:6] + pack("!H", REPLY) + ROUTER_MAC + target.packed + vnic.mac + sender
    return ethernet(vnic.mac, ROUTER_MAC, ARP) + told + frame[42:]


def is_reserved(address: IPv6Address) -> bool:
    """Of ::/64: unspecified, loopback, IPv4 mapped."""
    return not any(address.packed[:8])


def is_link_scope(source: IPv6Address, to: IPv6Address) -> bool:
    """Nothing that a router forwards."""
    local = to.is_multicast or to.is_link_local or source.is_link_local
    return local or is_reserved(source)


def answer_link(vnic: VNic, frame: bytes) -> bytes | None:
    """The same for an IPv6 packet that goes no further than the guest's link."""
    data = frame[14:]
    source, to = IPv6Address(data[8:24]), IPv6Address(data[24:40])
    if source not in (vnic.address(6), NOBODY) and not source.is_link_local:
        raise Drop("SPOOFED_IP")
    if data[6] == HOP_BY_HOP and to.is_multicast:
        if _is_mld_report(data[40:]):
            return None
        raise Drop("MULTICAST")
    if data[6] == ICMPV6:
        need(data, 48)
        kind = data[40]
        if kind == RS:
            return None
        if kind in range(RS, 138):
            need(data, 64)
            return _answer_discovery(vnic, kind, source, to, data)
        if kind == 128 and to == ROUTER_LINK_LOCAL:
            return ping_reply(vnic, frame)
    raise Drop("MULTICAST" if to.is_multicast else "LINK_LOCAL")


def _is_mld_report(data: bytes) -> bool:
    return len(data) >= 9 and data[0] == ICMPV6 and data[1] == 0 and data[8] in MLD_REPORTS


def _answer_discovery(
    vnic: VNic, kind: int, source: IPv6Address, to: IPv6Address, data: bytes
) -> bytes | None:
    target = IPv6Address(data[48:64])
    if kind == NA:
        if target != vnic.address(6) and not target.is_link_local:
            raise Drop("SPOOFED_IP")
        return None
    if kind != NS:
        raise Drop("BAD_ND")
    _check_solicitation(vnic, source, to, target, data)
    if target == vnic.address(6):
        return None
    routers = (vnic.router6, ROUTER_LINK_LOCAL) if vnic.ip6 else (ROUTER_LINK_LOCAL,)
    if target in routers or vnic.on_link(target):
        return _advertise(vnic, source, target, router=target in routers)
    if source == NOBODY and target.is_link_local:
        return None  # it tries an address of its own
    raise Drop("BAD_ND")


def _check_solicitation(
    vnic: VNic, source: IPv6Address, to: IPv6Address, target: IPv6Address, data: bytes
) -> None:
    """RFC 4861, section 7.1.1, but for the checksum."""
    length = number(data, 4)
    bad = data[7] != 255 or data[41] or length < 24 or target.is_multicast
    if bad or (source == NOBODY and to not in SOLICITED_NODE):
        raise Drop("BAD_ND")
    if length == 24:
        return
    need(data, 72)
    option, size = data[64], data[65]
    if not size or (option == 1 and source == NOBODY):
        raise Drop("BAD_ND")
    if option == 1 and data[66:72] != vnic.mac:
        raise Drop("SPOOFED_MAC")


def _advertise(vnic: VNic, source: IPv6Address, target: IPv6Address, *, router: bool) -> bytes:
    nobody = source == NOBODY
    to = ALL_NODES if nobody else source
    flags = (0x80 if router else 0) | (0 if nobody else 0x40) | 0x20
    rest = pack("!I", flags << 24) + target.packed + pack("!BB", 2, 1) + ROUTER_MAC
    message = icmp(target, to, NA, 0, rest)
    packet = ipv6(target, to, ICMPV6, message, hops=255)
    return ethernet(vnic.mac, ROUTER_MAC, IPV6) + packet
