"""A frame's headers in one line, for people: as much as its first bytes tell."""

import struct
from collections.abc import Callable, Mapping
from typing import Final

from achelous_shared.routes import ip_of, mac_of

_IPV4, _ARP, _IPV6 = 0x0800, 0x0806, 0x86DD
_VXLAN_PORT: Final = 4789
_FLAGS: Final = "FSRPAUEC"
"""TCP's, from the lowest bit."""

_Names = Mapping[int, str]
_PROTOCOLS: Final[_Names] = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}


def summary(frame: bytes) -> str:
    """What a frame is: `udp 10.0.0.5:1000 > 10.0.0.9:53`; what is cut off is left out."""
    try:
        return _ethernet(frame)
    except (struct.error, IndexError, ValueError):
        return f"{len(frame)} bytes that are no whole header"


def _ethernet(frame: bytes) -> str:
    (kind,) = struct.unpack_from(">H", frame, 12)
    reader: Callable[[bytes], str] | None = {_IPV4: _ipv4, _IPV6: _ipv6, _ARP: _arp}.get(kind)
    if reader is None:
        return f"ethertype {kind:#06x} {mac_of(frame[6:12])} > {mac_of(frame[:6])}"
    return reader(frame[14:])


def _arp(body: bytes) -> str:
    operation, sender, target = struct.unpack_from(">6xH6x4s6x4s", body)
    kind = {1: "asks for", 2: "tells"}.get(operation, f"operation {operation} about")
    return f"arp {_address(sender)} {kind} {_address(target)}"


def _ipv4(packet: bytes) -> str:
    first, fragment, protocol, source, target = struct.unpack_from(">B5xHxB2x4s4s", packet)
    ends = (_address(source), _address(target))
    if fragment & 0x1FFF:
        return f"{_name(protocol)} {ends[0]} > {ends[1]} fragment at {8 * (fragment & 0x1FFF)}"
    return _transport(protocol, ends, packet[4 * (first & 0x0F) :])


def _ipv6(packet: bytes) -> str:
    protocol, source, target = struct.unpack_from(">6xBx16s16s", packet)
    return _transport(protocol, (_address(source), _address(target)), packet[40:])


def _transport(protocol: int, ends: tuple[str, str], body: bytes) -> str:
    text = f"{_name(protocol)} {ends[0]} > {ends[1]}"
    try:
        if protocol in (1, 58):
            return f"{text} type {body[0]} code {body[1]}"
        if protocol not in (6, 17):
            return text
        ports = struct.unpack_from(">HH", body)
    except (struct.error, IndexError):
        return text
    text = f"{_name(protocol)} {_end(ends[0], ports[0])} > {_end(ends[1], ports[1])}"
    if protocol == 6 and len(body) > 13:
        return f"{text} {_tcp_flags(body[13])}".rstrip()
    if protocol == 17 and ports[1] == _VXLAN_PORT and len(body) >= 16:
        (vni,) = struct.unpack_from(">I", body, 12)
        return f"vxlan {ends[0]} > {ends[1]} vni {vni >> 8}: {summary(body[16:])}"
    return text


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _tcp_flags(flags: int) -> str:
    return "".join(name for bit, name in enumerate(_FLAGS) if flags & 1 << bit)


def _name(protocol: int) -> str:
    return _PROTOCOLS.get(protocol, f"protocol {protocol}")


def _address(packed: bytes) -> str:
    if len(packed) == 4:
        packed = b"\0" * 10 + b"\xff\xff" + packed
    return str(ip_of(packed))
