"""A packet as its headers say, or why it is none: RFC 791, 8200, 7112, 5722 and 5095."""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from model.wire import (
    DESTINATION,
    FRAGMENT,
    HOP_BY_HOP,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    ROUTING,
    TCP,
    UDP,
    Address,
)

EXTENSIONS: Final = (HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION)
FOLLOWED: Final = 6
"""Extension headers of one packet."""
ECHO: Final = {ICMP: (8, 0), ICMPV6: (128, 129)}
"""Request and reply."""
REQUESTS: Final = {
    (ICMP, 14): 13,
    (ICMP, 16): 15,
    (ICMP, 18): 17,
    (ICMP, 43): 42,
    (ICMPV6, 161): 160,
}
"""What other replies answer (RFC 792, 950, 8335)."""
ICMP_ERRORS: Final = (3, 4, 5, 11, 12)
DISCOVERY: Final = range(133, 138)
"""ICMPv6 types of neighbour discovery (RFC 4861)."""


class Drop(Exception):
    """The packet goes no further, for the reason of that name."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Ports(NamedTuple):
    """What a session and its rules know a packet by."""

    protocol: int
    sport: int = 0
    dport: int = 0
    icmp: tuple[int, int] = (0, 0)
    """Type and code."""


UNREAD: Final = Ports(0)


class First(NamedTuple):
    """What the first fragment of a datagram has left: `headers` bytes that none may overwrite."""

    ports: Ports
    headers: int


Datagram = tuple[int, Address, Address, int, int]
"""VNI, source, destination, identification, protocol of its fragments."""


@dataclass(slots=True)
class Packet:
    """One packet. Sizes in bytes; `rest` is what its header says that follows."""

    vni: int
    source: Address
    to: Address
    protocol: int
    traffic_class: int
    hops: int
    header: int
    rest: bytes
    ident: int = 0
    offset: int = 0
    more: bool = False
    tcp_flags: int = 0
    ports: Ports = UNREAD
    is_error: bool = False
    repeated: int = 0
    """Headers that every segment of a GSO frame has."""

    @property
    def length(self) -> int:
        return self.header + len(self.rest)


def need(data: bytes, size: int) -> None:
    if len(data) < size:
        raise Drop("TRUNCATED")


def number(data: bytes, at: int, size: int = 2) -> int:
    return int.from_bytes(data[at : at + size], "big")


def read_header(vni: int, ethertype: int, data: bytes) -> Packet:
    """The IP header at the beginning of `data`; what is behind its length is padding."""
    if ethertype == IPV4:
        return _read_ipv4(vni, data)
    if ethertype == IPV6:
        return _read_ipv6(vni, data)
    raise Drop("UNSUPPORTED_ETHERTYPE")


def _read_ipv4(vni: int, data: bytes) -> Packet:
    need(data, 20)
    header, total, place = (data[0] & 15) * 4, number(data, 2), number(data, 6)
    if data[0] >> 4 != 4 or header < 20:
        raise Drop("BAD_IP_HEADER")
    need(data, header)
    if not header <= total <= len(data):
        raise Drop("TRUNCATED")
    return Packet(
        vni, IPv4Address(data[12:16]), IPv4Address(data[16:20]), data[9], data[1], data[8], header,
        data[header:total], number(data, 4), (place & 0x1FFF) * 8, bool(place & 0x2000),
    )  # fmt: skip


def _read_ipv6(vni: int, data: bytes) -> Packet:
    need(data, 40)
    if data[0] >> 4 != 6:
        raise Drop("BAD_IP_HEADER")
    need(data[40:], number(data, 4))
    return Packet(
        vni, IPv6Address(data[8:24]), IPv6Address(data[24:40]), data[6],
        number(data, 0) >> 4 & 0xFF, data[7], 40, data[40 : 40 + number(data, 4)],
    )  # fmt: skip


class Chain(NamedTuple):
    """Where a chain of extension headers ends. `divided`: where the fragmentable part begins."""

    protocol: int
    at: int
    fragment: bytes = b""
    divided: int = 0

    @property
    def offset(self) -> int:
        return number(self.fragment, 2) & 0xFFF8 if self.fragment else 0


def walk(protocol: int, data: bytes, *, quoted: bool = False) -> Chain:
    """Past all extension headers, or up to the payload of a later fragment.

    A header may say that it is longer than what a quote has of its packet.
    """
    chain = Chain(protocol, 0)
    for count in range(FOLLOWED + 1):
        if chain.offset or chain.protocol not in EXTENSIONS:
            return chain
        if count == FOLLOWED:
            break
        chain = _past(chain, data, first=not count)
        if not quoted:
            need(data, chain.at)
    raise Drop("EXTENSION_HEADERS")


def _past(chain: Chain, data: bytes, *, first: bool) -> Chain:
    need(data, chain.at + 8)
    head = data[chain.at : chain.at + 8]
    if chain.protocol == FRAGMENT:
        if chain.divided:
            raise Drop("EXTENSION_HEADERS")
        return Chain(head[0], chain.at + 8, head, chain.at + 8)
    misplaced = chain.protocol == HOP_BY_HOP and not first
    if misplaced or (chain.protocol == ROUTING and head[2] == 0):
        raise Drop("EXTENSION_HEADERS")
    return chain._replace(protocol=head[0], at=chain.at + 8 + 8 * head[1])


def read_rest(packet: Packet, firsts: dict[Datagram, First]) -> None:
    """Its transport; a fragment leaves or takes its ports in `firsts`."""
    at = divided = 0
    protocol = packet.protocol
    if packet.to.version == 6:
        chain = walk(packet.protocol, packet.rest)
        at, divided, packet.protocol = chain.at, chain.divided, chain.protocol
        if chain.fragment:
            protocol, packet.ident = chain.fragment[0], number(chain.fragment, 4, 4)
            packet.offset, packet.more = chain.offset, bool(chain.fragment[3] & 1)
    whole = (packet.vni, packet.source, packet.to, packet.ident, protocol)
    if packet.offset:
        first = firsts.get(whole)
        if first is None or packet.offset < first.headers:
            raise Drop("FRAGMENT")
        packet.ports, packet.protocol = first.ports, first.ports.protocol
        return
    size = _transport(packet, packet.rest[at:])
    packet.repeated = packet.header + at + size
    if packet.more:
        firsts[whole] = First(packet.ports, at - divided + size)


def _transport(packet: Packet, data: bytes) -> int:
    """Fills in the ports; returns the size of its header."""
    version = packet.to.version
    readers: dict[int, Callable[[Packet, bytes], int]] = {
        TCP: _tcp,
        UDP: _udp,
        ICMP if version == 4 else ICMPV6: _icmp,
    }
    packet.ports = Ports(packet.protocol)
    reader = readers.get(packet.protocol)
    return reader(packet, data) if reader else 0


def _tcp(packet: Packet, data: bytes) -> int:
    need(data, 20)
    size = (data[12] >> 4) * 4
    if not 20 <= size <= len(data):
        raise Drop("TRUNCATED")
    packet.tcp_flags = data[13]
    packet.ports = Ports(TCP, number(data, 0), number(data, 2))
    return size


def _udp(packet: Packet, data: bytes) -> int:
    need(data, 8)
    packet.ports = Ports(UDP, number(data, 0), number(data, 2))
    return 8


def _other_icmp(protocol: int, kind: int, code: int) -> Ports:
    """What a message says stands for its ports: type and code, and their complement on the other
    side. A reply is known by its request, of code 0."""
    request = REQUESTS.get((protocol, kind))
    asked = kind << 8 | code if request is None else request << 8
    ports = Ports(protocol, asked, 0xFFFF - asked, (kind, code))
    return ports if request is None else ports._replace(sport=ports.dport, dport=ports.sport)


def _icmp(packet: Packet, data: bytes) -> int:
    need(data, 8)
    kind = data[0]
    if kind in ECHO[packet.protocol]:
        ident = number(data, 4)
        packet.ports = Ports(packet.protocol, ident, ident, (kind, data[1]))
    else:
        packet.ports = _other_icmp(packet.protocol, kind, data[1])
    packet.is_error = kind in ICMP_ERRORS if packet.protocol == ICMP else kind < 128
    if packet.protocol == ICMPV6 and kind in DISCOVERY:
        raise Drop("BAD_ND")
    return 8
