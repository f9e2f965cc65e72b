"""Frames that nobody should send: of guests that lie, and of an underlay that is not ours."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from struct import pack
from typing import Final

from model import wire
from model.world import ROUTER_MAC
from packets.differential.local import LOCAL, SOMEBODY
from packets.differential.people import (
    GATEWAYS,
    OTHER_VTEP,
    OWN_VTEP,
    PEER_VTEP,
    STRANGER,
    Person,
)

UNDERLAY: Final = wire.ethernet(
    bytes.fromhex("02000000aa01"), bytes.fromhex("02000000aa02"), wire.IPV4
)
GROUP: Final = bytes.fromhex("030000000001")


def _six(person: Person, source: str | None, to: str) -> bytes:
    ends = (IPv6Address(source) if source else person.ip6, IPv6Address(to))
    packet = wire.packet(*ends, wire.UDP, wire.udp(*ends, 1000, 2000, b"odd"))
    return wire.ethernet(ROUTER_MAC, person.mac, wire.IPV6) + packet


def _four(person: Person, to: IPv4Address) -> bytes:
    message = wire.udp(person.ip4, to, 1000, 2000, b"odd")
    packet = wire.packet(person.ip4, to, wire.UDP, message)
    return wire.ethernet(ROUTER_MAC, person.mac, wire.IPV4) + packet


def lie(sender: Person, receiver: Person, version: int, what: str) -> bytes:
    """The frame of that name (`steps.LIES`)."""
    ends = (sender.address(version), receiver.address(version))
    packet = wire.packet(*ends, wire.UDP, wire.udp(*ends, 1000, 2000, b"odd"))
    ethertype = wire.ethertype_of(ends[0])
    plain = wire.ethernet(ROUTER_MAC, sender.mac, ethertype) + packet
    stranger = receiver.address(version)
    match what:
        case "mac":
            return plain[:6] + SOMEBODY + plain[12:]
        case "ip":
            own = wire.packet(stranger, ends[1], wire.UDP, wire.udp(*ends, 1, 2, b"odd"))
            return plain[:14] + own
        case "group mac":
            return GROUP + plain[6:]
        case "multicast":
            return _four(sender, IPv4Address("224.0.0.251"))
        case "limited broadcast":
            return _four(sender, IPv4Address("255.255.255.255"))
        case "broadcast":
            return _four(sender, sender.net4.broadcast_address)
        case "reserved source":
            return _six(sender, "::1", str(receiver.ip6))
        case "reserved destination":
            return _six(sender, None, "::1")
        case "mapped destination":
            return _six(sender, None, "::ffff:10.0.0.6")
        case "local source":
            return _six(sender, str(LOCAL), str(receiver.ip6))
        case "ethertype":
            return plain[:12] + b"\x88\xb5" + plain[14:]
        case "vlan":
            return plain[:12] + b"\x81\x00\x00\x05" + plain[12:]
    return plain


def _put(frame: bytes, at: int, value: bytes) -> bytes:
    return frame[:at] + value + frame[at + len(value) :]


Bent = Callable[[bytes], bytes]
IP, UDP, VXLAN, INNER = 14, 34, 42, 50

BENT: Final[dict[str, Bent]] = {
    "no flag I": lambda frame: _put(frame, VXLAN, b"\xf7"),
    "all flags": lambda frame: _put(frame, VXLAN, b"\xff\xff"),
    "reserved bits": lambda frame: _put(frame, VXLAN, b"\x7f\x7f"),
    "identity": lambda frame: _put(frame, VXLAN, b"\x88\x00\x00\x11"),
    "identity without G": lambda frame: _put(frame, VXLAN, b"\x08\x00\x00\x11"),
    "piece": lambda frame: _put(frame, IP + 6, b"\x20\x00"),
    "later piece": lambda frame: _put(frame, IP + 6, b"\x00\x10"),
    "udp short": lambda frame: _put(frame, UDP + 4, b"\x00\x30"),
    "udp long": lambda frame: _put(frame, UDP + 4, b"\x01\x00"),
    "udp tiny": lambda frame: _put(frame, UDP + 4, b"\x00\x07"),
    "total long": lambda frame: _put(frame, IP + 2, b"\x01\x00"),
    "total tiny": lambda frame: _put(frame, IP + 2, b"\x00\x13"),
    "congested not capable": lambda frame: _put(frame, IP + 1, b"\x03"),
    "port": lambda frame: _put(frame, UDP + 2, b"\x12\xb6"),
    "other vtep": lambda frame: _put(frame, IP + 16, OTHER_VTEP.packed),
    "checksum": lambda frame: _put(frame, UDP + 6, b"\x12\x34"),
    "padding": lambda frame: frame + b"padded",
    "inner arp": lambda frame: _put(frame, INNER + 12, b"\x08\x06"),
    "inner vlan": lambda frame: _put(frame, INNER + 12, b"\x81\x00"),
    "outer vlan": lambda frame: _put(frame, 12, b"\x81\x00"),
    "tcp": lambda frame: _put(frame, IP + 9, b"\x06"),
    "gateway": lambda frame: _put(frame, IP + 12, GATEWAYS[0].packed),
    "stranger": lambda frame: _put(frame, IP + 12, STRANGER.packed),
    "ipv6": lambda frame: _put(frame, 12, b"\x86\xdd"),
}


def bend(sender: Person, receiver: Person, version: int, what: str) -> bytes:
    """The frame of that name (`steps.BENDS`), from another host or something else."""
    source, to = sender.address(version), receiver.address(version)
    mac, vni, tos, options = receiver.mac, receiver.vni, 0, b""
    protocol = wire.UDP
    match what:
        case "vni":
            vni = 0xABCDEF
        case "unknown endpoint":
            to = sender.address(version)
        case "mac":
            mac = SOMEBODY
        case "own source":
            source = to
        case "inner local":
            source = LOCAL
            to = receiver.ip6
        case "options":
            options = b"\x01" * 4
        case "congested":
            tos = 3
        case "inner discovery":
            source, to, protocol = sender.ip6, receiver.ip6, wire.ICMPV6
    message = wire.udp(source, to, 1000, 2000, b"bent")
    if protocol == wire.ICMPV6:
        message = pack("!BBHI", 136, 0, 0, 0) + source.packed
    if source.version == 4:
        assert isinstance(source, IPv4Address)
        assert isinstance(to, IPv4Address)
        packet = wire.ipv4(source, to, protocol, message, tos=2 if tos else 0)
    else:
        packet = wire.packet(source, to, protocol, message)
        if tos:
            packet = bytes([packet[0], packet[1] | 2 << 4]) + packet[2:]
    inner = wire.ethernet(mac, sender.mac, wire.ethertype_of(source)) + packet
    inside = wire.vxlan_header(vni, 0) + inner
    header = pack("!HHHH", 50_000, wire.VXLAN_PORT, 8 + len(inside), 0)
    outer = wire.ipv4(PEER_VTEP, OWN_VTEP, wire.UDP, header + inside, tos=tos, options=options)
    frame = UNDERLAY + outer
    return BENT[what](frame) if what in BENT else frame
