"""Frames as a guest sends them: of a flow written as text, or from a capture."""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

ROUTER_MAC: Final = bytes.fromhex("0eace1000001")
"""As `achelous_shared.names` has it: what a guest sends to, whoever the receiver is."""
FORM: Final = "PROTOCOL ADDRESS:PORT > ADDRESS:PORT, as in 'tcp 10.0.0.5:4321 > 10.0.1.9:443'"
MAX_FRAME: Final = 3000

_TCP, _UDP, _ICMP, _ICMP6 = 6, 17, 1, 58
_PROTOCOLS: Final = {"tcp": _TCP, "udp": _UDP, "icmp": _ICMP}
_FLAGS: Final = "FSRPAUEC"
_HEADERS: Final = {_TCP: 20, _UDP: 8, _ICMP: 8, _ICMP6: 8}
_DF: Final = 0x4000
_WINDOW: Final = 64240
_PCAP: Final = {
    b"\xd4\xc3\xb2\xa1": "<", b"\x4d\x3c\xb2\xa1": "<",
    b"\xa1\xb2\xc3\xd4": ">", b"\xa1\xb2\x3c\x4d": ">",
}  # fmt: skip
"""Magic numbers, in micro- and nanoseconds, and the byte order that each means."""
_PCAPNG: Final = b"\x0a\x0d\x0d\x0a"
_ETHERNET: Final = 1

Address = IPv4Address | IPv6Address


class NoPacket(ValueError):
    """A text or file that is no packet, and what would be right."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Who sends what to whom; ports are 0 in ICMP."""

    protocol: int
    source: Address
    sport: int
    target: Address
    dport: int


@dataclass(frozen=True, slots=True)
class Shape:
    """``flags``: TCP's. ``ttl``: or hop limit. ``size``: of the IP packet in bytes, whose payload
    is zeros; None: no payload."""

    flags: int
    ttl: int
    size: int | None


def parse_flow(text: str) -> Flow:
    """The flow that a text means; raises `NoPacket`."""
    words = text.replace(">", " > ").split()
    if len(words) != 4 or words[2] != ">":
        raise NoPacket(f"{text!r} is no packet: write it as {FORM}")
    name = words[0].lower()
    if name not in _PROTOCOLS:
        raise NoPacket(f"{words[0]!r} is no protocol: take one of {', '.join(_PROTOCOLS)}")
    protocol = _PROTOCOLS[name]
    source, sport = _end(words[1], ports=protocol != _ICMP)
    target, dport = _end(words[3], ports=protocol != _ICMP)
    if source.version != target.version:
        raise NoPacket(f"{source} and {target} are of two families: both have to be IPv4 or IPv6")
    if protocol == _ICMP and source.version == 6:
        protocol = _ICMP6
    return Flow(protocol, source, sport, target, dport)


def parse_flags(text: str) -> int:
    """TCP flags by their letters; raises `NoPacket`."""
    unknown = set(text.upper()) - set(_FLAGS)
    if unknown:
        raise NoPacket(
            f"{text!r} are no TCP flags: take letters of {_FLAGS}, as in S, SA, A, FA or R"
        )
    return sum(1 << _FLAGS.index(letter) for letter in set(text.upper()))


def frame_of(flow: Flow, mac: bytes, shape: Shape) -> bytes:
    """The frame that the guest with this MAC sends; raises `NoPacket`. ICMP is an echo request."""
    header = 20 if flow.source.version == 4 else 40
    least = header + _HEADERS[flow.protocol]
    size = least if shape.size is None else shape.size
    if not least <= size <= MAX_FRAME - 14:
        raise NoPacket(f"a size of {size} bytes: it has to be {least} to {MAX_FRAME - 14}")
    payload = _transport(flow, shape.flags, size - header)
    ethertype = 0x0800 if flow.source.version == 4 else 0x86DD
    packet = (_ipv4 if flow.source.version == 4 else _ipv6)(flow, payload, shape.ttl)
    return _receiver(flow.target) + mac + struct.pack(">H", ethertype) + packet


def frame_in(path: Path, number: int) -> bytes:
    """Frame ``number`` (from 1) of a capture in pcap format; raises `NoPacket`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NoPacket(f"{path} can not be read: {error.strerror}") from error
    order = _PCAP.get(data[:4])
    if order is None or len(data) < 24:
        hint = ": convert it by `editcap -F pcap`" if data[:4] == _PCAPNG else ""
        raise NoPacket(f"{path} is no capture in pcap format, as `tcpdump -w` writes it{hint}")
    (link,) = struct.unpack_from(f"{order}I", data, 20)
    if link & 0xFFFF != _ETHERNET:
        raise NoPacket(f"{path} holds frames of link type {link & 0xFFFF}, should be 1 (Ethernet)")
    at, seen = 24, 0
    while at + 16 <= len(data):
        kept, whole = struct.unpack_from(f"{order}8xII", data, at)
        frame = data[at + 16 : at + 16 + kept]
        seen += 1
        if seen == number:
            return _whole(frame, whole, path, number)
        at += 16 + kept
    raise NoPacket(f"{path} holds {seen} frames: there is no number {number}")


def _whole(frame: bytes, length: int, path: Path, number: int) -> bytes:
    if len(frame) < length:
        raise NoPacket(
            f"frame {number} of {path} was cut to {len(frame)} of {length} bytes: capture it whole"
        )
    if not 16 <= length <= MAX_FRAME:
        raise NoPacket(
            f"frame {number} of {path} has {length} bytes, should have 16 to {MAX_FRAME}"
        )
    return frame


def _end(text: str, *, ports: bool) -> tuple[Address, int]:
    address, port = text, ""
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    try:
        found = ip_address(address)
    except ValueError:
        raise NoPacket(f"{text!r} names no address: write it as {FORM}") from None
    if not ports:
        if port:
            raise NoPacket(f"{text!r}: icmp has no ports, write the address alone")
        return found, 0
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16):
        example = f"[{address}]:443" if found.version == 6 else f"{address}:443"
        raise NoPacket(f"{text!r} needs a port from 1 to 65535, as in {example}")
    return found, int(port)


def _receiver(target: Address) -> bytes:
    """The MAC that a guest puts in front: the router's, unless the frame is for many."""
    if not target.is_multicast and str(target) != "255.255.255.255":
        return ROUTER_MAC
    if target.version == 6:
        return b"\x33\x33" + target.packed[-4:]
    if target.is_multicast:
        return b"\x01\x00\x5e" + bytes([target.packed[1] & 0x7F]) + target.packed[2:]
    return b"\xff" * 6


def _ipv4(flow: Flow, payload: bytes, ttl: int) -> bytes:
    ends = flow.source.packed + flow.target.packed
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, _DF, ttl, flow.protocol, 0)
    check = _checksum(head + ends)
    return head[:10] + struct.pack(">H", check) + ends + payload


def _ipv6(flow: Flow, payload: bytes, ttl: int) -> bytes:
    head = struct.pack(">IHBB", 6 << 28, len(payload), flow.protocol, ttl)
    return head + flow.source.packed + flow.target.packed + payload


def _transport(flow: Flow, flags: int, length: int) -> bytes:
    if flow.protocol == _TCP:
        head = struct.pack(">HHIIBBHHH", flow.sport, flow.dport, 1, 0, 5 << 4, flags, _WINDOW, 0, 0)
        at = 16
    elif flow.protocol == _UDP:
        head = struct.pack(">HHHH", flow.sport, flow.dport, length, 0)
        at = 6
    else:
        head = struct.pack(">BBHHH", 8 if flow.protocol == _ICMP else 128, 0, 0, 1, 1)
        at = 2
    segment = head.ljust(length, b"\0")
    pseudo = b"" if flow.protocol == _ICMP else _pseudo(flow, length)
    check = _checksum(pseudo + segment) or 0xFFFF
    return segment[:at] + struct.pack(">H", check) + segment[at + 2 :]


def _pseudo(flow: Flow, length: int) -> bytes:
    return flow.source.packed + flow.target.packed + struct.pack(">II", length, flow.protocol)


def _checksum(data: bytes) -> int:
    words = struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total: int = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
