"""Headers as bytes and their checksums, by the RFCs that define them."""

from ipaddress import IPv4Address, IPv6Address
from struct import pack
from typing import Final

IPV4: Final = 0x0800
ARP: Final = 0x0806
IPV6: Final = 0x86DD
ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
GRE: Final = 47
ICMPV6: Final = 58
HOP_BY_HOP: Final = 0
ROUTING: Final = 43
FRAGMENT: Final = 44
DESTINATION: Final = 60
VXLAN_PORT: Final = 4789
MORE: Final = 1
DONT: Final = 2
"""Flags of an IPv4 header."""

Address = IPv4Address | IPv6Address


def ones_sum(data: bytes) -> int:
    """The 16-bit ones' complement sum (RFC 1071)."""
    padded = data + bytes(len(data) % 2)
    total = sum(int.from_bytes(padded[at : at + 2], "big") for at in range(0, len(padded), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum(data: bytes) -> int:
    """What stands in a header whose field is 0 in `data`."""
    return 0xFFFF - ones_sum(data)


def corrected(check: int, before: bytes, after: bytes) -> int:
    """The checksum once `before` has become `after` (RFC 1624, equation 3)."""
    words = pack("!H", 0xFFFF - check) + bytes(255 - byte for byte in before) + after
    return 0xFFFF - ones_sum(words)


def ethernet(to: bytes, source: bytes, ethertype: int) -> bytes:
    return to + source + pack("!H", ethertype)


def ipv4(
    source: IPv4Address,
    to: IPv4Address,
    protocol: int,
    payload: bytes,
    *,
    hops: int = 64,
    tos: int = 0,
    ident: int = 0,
    flags: int = 0,
    offset: int = 0,
    options: bytes = b"",
) -> bytes:
    """An IPv4 packet (RFC 791). `offset`: in bytes; `options`: a multiple of 4 bytes."""
    words = 5 + len(options) // 4
    place = flags << 13 | offset // 8
    total = 4 * words + len(payload)
    first = pack("!BBHHHBB", 0x40 | words, tos, total, ident, place, hops, protocol)
    second = source.packed + to.packed + options
    return first + pack("!H", checksum(first + second)) + second + payload


def ipv6(
    source: IPv6Address,
    to: IPv6Address,
    next_header: int,
    payload: bytes,
    *,
    hops: int = 64,
    traffic_class: int = 0,
) -> bytes:
    """An IPv6 packet (RFC 8200)."""
    first = pack("!IHBB", 6 << 28 | traffic_class << 20, len(payload), next_header, hops)
    return first + source.packed + to.packed + payload


def pseudo(source: Address, to: Address, protocol: int, length: int) -> bytes:
    """The pseudo header of either version; both sum up alike."""
    return source.packed + to.packed + pack("!II", length, protocol)


def with_checksum(message: bytes, at: int, seed: bytes = b"") -> bytes:
    """`message`, whose field at `at` is 0, with its checksum."""
    return message[:at] + pack("!H", checksum(seed + message)) + message[at + 2 :]


def udp(source: Address, to: Address, sport: int, dport: int, data: bytes) -> bytes:
    """RFC 768."""
    message = pack("!HHHH", sport, dport, 8 + len(data), 0) + data
    return with_checksum(message, 6, pseudo(source, to, UDP, len(message)))


def tcp(source: Address, to: Address, sport: int, dport: int, flags: int, data: bytes) -> bytes:
    """A segment without options (RFC 9293)."""
    message = pack("!HHIIBBHHH", sport, dport, 1, 1, 5 << 4, flags, 8192, 0, 0) + data
    return with_checksum(message, 16, pseudo(source, to, TCP, len(message)))


def icmp(source: Address, to: Address, kind: int, code: int, rest: bytes) -> bytes:
    """ICMP (RFC 792) or ICMPv6 (RFC 4443), by the addresses' version."""
    message = pack("!BBH", kind, code, 0) + rest
    seed = b"" if source.version == 4 else pseudo(source, to, ICMPV6, len(message))
    return with_checksum(message, 2, seed)


def packet(source: Address, to: Address, protocol: int, payload: bytes, *, hops: int = 64) -> bytes:
    """A packet of the addresses' version without further ado."""
    if isinstance(source, IPv4Address) and isinstance(to, IPv4Address):
        return ipv4(source, to, protocol, payload, hops=hops)
    assert isinstance(source, IPv6Address)
    assert isinstance(to, IPv6Address)
    return ipv6(source, to, protocol, payload, hops=hops)


def ethertype_of(address: Address) -> int:
    return IPV4 if address.version == 4 else IPV6


def vxlan_header(vni: int, identity: int) -> bytes:
    """RFC 7348, section 5; with the group policy extension where there is an identity to tell
    (draft-smith-vxlan-group-policy)."""
    flags = 0x88 if identity else 0x08
    return pack("!BBHI", flags, 0, identity, vni << 8)


def tunnel(
    source: IPv4Address, to: IPv4Address, sport: int, inside: bytes, *, tos: int = 0
) -> bytes:
    """The outer packet of VXLAN: not fragmented, UDP without a checksum."""
    header = pack("!HHHH", sport, VXLAN_PORT, 8 + len(inside), 0)
    return ipv4(source, to, UDP, header + inside, tos=tos, flags=DONT)
