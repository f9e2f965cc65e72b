"""IP packets as bytes: what is wrong with one, and how to put it right.

Without scapy: it runs thousands of times a second.
"""

from dataclasses import dataclass
from typing import Final

ETHERNET: Final = 14
OUTER: Final = 50
IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
_SUM_AT: Final = {ICMP: 2, TCP: 16, UDP: 6, ICMP6: 2}


def number(data: bytes | bytearray, at: int) -> int:
    """The 16 bits at `at`; 0 where there are none."""
    return int.from_bytes(data[at : at + 2], "big")


def ones_sum(*parts: bytes) -> int:
    """The Internet checksum (RFC 1071) of the parts, one after the other."""
    data = b"".join(parts)
    total = int.from_bytes(data + bytes(len(data) % 2), "big") % 0xFFFF
    return 0xFFFF - total if total or not any(data) else 0


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are in an IP packet. `proto` is 0 for what has no transport to check: fragments,
    IPv6 with extension headers, protocols without a checksum."""

    version: int
    header: int
    length: int
    proto: int

    @classmethod
    def of(cls, packet: bytes | bytearray) -> "Layout | None":
        """None: not even a whole header."""
        if not packet:
            return None
        if packet[0] >> 4 == 4 and len(packet) >= 20:
            header = (packet[0] & 15) * 4
            whole = not number(packet, 6) & 0x3FFF
            return cls(4, header, number(packet, 2), packet[9] if whole else 0)
        if packet[0] >> 4 == 6 and len(packet) >= 40:
            proto = packet[6]
            return cls(6, 40, 40 + number(packet, 4), proto if proto in _SUM_AT else 0)
        return None

    def fits(self, packet: bytes | bytearray) -> bool:
        return 20 <= self.header <= self.length <= len(packet)


def transport_sum(packet: bytes | bytearray, layout: Layout) -> int:
    """The checksum over pseudo header and segment as it stands: 0 where it is right."""
    segment = bytes(packet[layout.header : layout.length])
    if layout.proto == ICMP:
        return ones_sum(segment)
    addresses = bytes(packet[12:20] if layout.version == 4 else packet[8:40])
    pseudo = len(segment).to_bytes(4, "big") + layout.proto.to_bytes(4, "big")
    return ones_sum(addresses, pseudo, segment)


def flaws(packet: bytes) -> set[str]:
    """What a receiver would find wrong with an IP packet's lengths and checksums."""
    layout = Layout.of(packet)
    if layout is None:
        return {"header"}
    if not layout.fits(packet):
        return {"length"}
    found = set()
    if layout.version == 4 and ones_sum(packet[: layout.header]):
        found.add("header sum")
    at = _SUM_AT.get(layout.proto)
    if at is None:
        return found
    if layout.length < layout.header + at + 2:
        return found | {"transport"}
    if layout.proto == UDP:
        if number(packet, layout.header + 4) != layout.length - layout.header:
            found.add("UDP length")
        if layout.version == 4 and not number(packet, layout.header + 6):
            return found
    if transport_sum(packet, layout):
        found.add("transport sum")
    return found


def repaired(frame: bytes) -> bytes:
    """The frame with the lengths and checksums that it should have, inside a tunnel too."""
    made = bytearray(frame)
    if number(made, 12) not in (IPV4, IPV6):
        return frame
    if number(made, 12) == IPV4 and made[23:24] == b"\x11" and number(made, 36) == 4789:
        _repair(made, ETHERNET + OUTER)
    _repair(made, ETHERNET)
    return bytes(made)


def _repair(made: bytearray, at: int) -> None:
    packet = made[at:]
    layout = Layout.of(packet)
    if layout is None:
        return
    if layout.version == 4:
        packet[2:4] = len(packet).to_bytes(2, "big")
        packet[10:12] = b"\0\0"
        packet[10:12] = ones_sum(bytes(packet[: layout.header])).to_bytes(2, "big")
    else:
        packet[4:6] = (len(packet) - 40).to_bytes(2, "big")
    whole = Layout(layout.version, layout.header, len(packet), layout.proto)
    place = _SUM_AT.get(layout.proto)
    if place is not None and whole.length >= whole.header + place + 2:
        begin = whole.header + place
        if layout.proto == UDP:
            packet[whole.header + 4 : begin] = (whole.length - whole.header).to_bytes(2, "big")
        packet[begin : begin + 2] = b"\0\0"
        packet[begin : begin + 2] = (transport_sum(packet, whole) or 0xFFFF).to_bytes(2, "big")
    made[at:] = packet
