"""The router that every host is to its guests: hops, pings, ICMP errors (decision 0010)."""

from ipaddress import IPv4Address, IPv6Address
from struct import pack
from typing import Final

from model.reading import Drop
from model.wire import (
    DONT,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    corrected,
    ethernet,
    icmp,
    ipv4,
    ipv6,
    with_checksum,
)
from model.world import ROUTER_MAC, VNic

HOPS: Final = 64
QUOTED: Final = 512
"""Bytes of a packet that an error quotes, at most."""
KINDS: Final = {
    ("TTL_EXPIRED", 4): (11, 0),
    ("TTL_EXPIRED", 6): (3, 0),
    ("TOO_BIG", 4): (3, 4),
    ("TOO_BIG", 6): (2, 0),
    ("FOR_ROUTER", 4): (3, 3),
    ("FOR_ROUTER", 6): (1, 4),
}
"""Type and code by reason and version; to the router itself: no such port."""


def one_hop_less(packet: bytes) -> bytes:
    """An IP packet with the rest as it was."""
    if packet[0] >> 4 == 6:
        return packet[:7] + bytes([packet[7] - 1]) + packet[8:]
    after = bytes([packet[8] - 1, packet[9]])
    check = corrected(int.from_bytes(packet[10:12], "big"), packet[8:10], after)
    return packet[:8] + after + pack("!H", check) + packet[12:]


def error(vnic: VNic, reason: str, packet: bytes, *, mtu: int = 0) -> bytes:
    """The frame that tells the vNIC's guest about its packet, which is as long as it says."""
    version = packet[0] >> 4
    kind, code = KINDS[reason, version]
    rest = pack("!I", mtu) + packet[:QUOTED]
    source, to = (vnic.router4, vnic.ip4) if version == 4 else (vnic.router6, vnic.address(6))
    message = icmp(source, to, kind, code, rest)
    if isinstance(source, IPv4Address) and isinstance(to, IPv4Address):
        answer = ipv4(source, to, ICMP, message, hops=HOPS, flags=DONT)
        return ethernet(vnic.mac, ROUTER_MAC, IPV4) + answer
    assert isinstance(source, IPv6Address)
    assert isinstance(to, IPv6Address)
    answer = ipv6(source, to, ICMPV6, message, hops=HOPS)
    return ethernet(vnic.mac, ROUTER_MAC, IPV6) + answer


def ping_reply(vnic: VNic, frame: bytes) -> bytes:
    """The answer to a ping without options; what else it carries stays as it is."""
    packet = frame[14:]
    ethertype = int.from_bytes(frame[12:14], "big")
    if packet[0] >> 4 == 6:
        if packet[6] != ICMPV6:
            raise Drop("FOR_ROUTER")
        header = packet[:7] + bytes([HOPS]) + packet[24:40] + packet[8:24]
        reply = 129
    else:
        if packet[0] & 15 != 5:
            raise Drop("FOR_ROUTER")
        header = _turned_ipv4(packet[:20])
        reply = 0
    asked = packet[len(header) :]
    check = corrected(int.from_bytes(asked[2:4], "big"), asked[:2], bytes([reply, asked[1]]))
    answer = bytes([reply, asked[1]]) + pack("!H", check) + asked[4:]
    return ethernet(vnic.mac, ROUTER_MAC, ethertype) + header + answer


def _turned_ipv4(header: bytes) -> bytes:
    """With its addresses in each other's place, and a fresh checksum."""
    bare = header[:8] + bytes([HOPS, header[9], 0, 0]) + header[16:20] + header[12:16]
    return with_checksum(bare, 10)
