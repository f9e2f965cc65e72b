"""Frames that concern a guest's link and its router alone, by name."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from struct import pack
from typing import Any, Final

from model import wire
from model.world import NOBODY, ROUTER_LINK_LOCAL, ROUTER_MAC
from packets.differential.people import BEN, Person

BROADCAST: Final = bytes.fromhex("ffffffffffff")
SOMEBODY: Final = bytes.fromhex("020000000066")
ANY4: Final = IPv4Address(0)
ALL4: Final = IPv4Address("255.255.255.255")
PEER6: Final = IPv6Address("fd00::6")
LOCAL: Final = IPv6Address("fe80::5")
ALL_NODES: Final = IPv6Address("ff02::1")
ASKED: Final = IPv6Address("ff02::1:ff00:6")
NS, NA = 135, 136


def frame(person: Person, what: str) -> bytes:
    """The frame of that name (`steps.LINK_FRAMES`) from the guest."""
    kind, _, rest = what.partition(" ")
    match kind:
        case "arp":
            return _arp(person, rest)
        case "ns":
            return _solicitation(person, rest)
        case "na" if rest != "behind options":
            target = {"own": person.ip6, "other": IPv6Address("fd00::66"), "local": LOCAL}[rest]
            return _six(person, person.ip6, ALL_NODES, _discovery(NA, target), hops=255)
    return _other(person, what)


def _arp(person: Person, rest: str) -> bytes:
    hardware, operation, mac, sender = 1, 1, person.mac, person.ip4
    target = person.net4[77]
    match rest:
        case "router":
            target = person.net4[1]
        case "off link":
            target = IPv4Address("10.9.9.9")
        case "probe":
            sender = ANY4
        case "own":
            target = person.ip4
        case "reply":
            operation = 2
        case "other mac":
            mac = SOMEBODY
        case "other ip":
            sender = person.net4[78]
        case "reverse":
            operation = 3
        case "token ring":
            hardware = 6
    message = pack("!HHBBH", hardware, wire.IPV4, 6, 4, operation)
    message += mac + sender.packed + bytes(6) + target.packed
    return wire.ethernet(BROADCAST, person.mac, wire.ARP) + message


@dataclass(slots=True)
class _Asked:
    """A solicitation in the making."""

    source: IPv6Address
    target: IPv6Address
    to: IPv6Address = ASKED
    option: bytes = b""
    hops: int = 255
    code: int = 0


def _solicitation(person: Person, rest: str) -> bytes:
    option = b"\x01\x01" + person.mac
    peer = person.net6[0x77]
    plain = _Asked(person.ip6, peer, option=option)
    changed: dict[str, dict[str, Any]] = {
        "router": {"target": person.net6[1]},
        "router local": {"target": ROUTER_LINK_LOCAL},
        "off link": {"target": IPv6Address("fd09::6")},
        "own": {"target": person.ip6},
        "dad": {"source": NOBODY, "target": person.ip6, "option": b""},
        "dad peer": {"source": NOBODY, "option": b""},
        "dad local": {"source": NOBODY, "target": LOCAL, "option": b"\x0e\x01nonce!"},
        "hops": {"hops": 254},
        "code": {"code": 1},
        "option 0": {"option": bytes([1, 0]) + person.mac},
        "other mac": {"option": b"\x01\x01" + SOMEBODY},
        "nobody option": {"source": NOBODY},
        "nobody unicast": {"source": NOBODY, "to": peer, "option": b""},
        "multicast target": {"target": ALL_NODES},
        "other source": {"source": peer},
        "unicast": {"to": peer},
        "to peer": {"to": BEN.ip6},
        "local source": {"source": LOCAL},
    }
    for name, value in changed.get(rest, {}).items():
        setattr(plain, name, value)
    rest_of = bytes(4) + plain.target.packed + plain.option
    message = wire.icmp(plain.source, plain.to, NS, plain.code, rest_of)
    if rest == "short":
        message = message[:20]
    return _six(person, plain.source, plain.to, message, hops=plain.hops)


def _discovery(kind: int, target: IPv6Address) -> bytes:
    return pack("!BBHI", kind, 0, 0, 0) + target.packed


def _six(
    person: Person, source: IPv6Address, to: IPv6Address, message: bytes,
    *, hops: int = 64, following: int = wire.ICMPV6,
) -> bytes:  # fmt: skip
    mac = b"\x33\x33" + to.packed[12:] if to.is_multicast else ROUTER_MAC
    packet = wire.ipv6(source, to, following, message, hops=hops)
    return wire.ethernet(mac, person.mac, wire.IPV6) + packet


def _four(person: Person, to: IPv4Address, protocol: int, message: bytes, **fields: Any) -> bytes:
    mac = BROADCAST if to == ALL4 else ROUTER_MAC
    packet = wire.ipv4(person.ip4, to, protocol, message, **fields)
    return wire.ethernet(mac, person.mac, wire.IPV4) + packet


def _other(person: Person, what: str) -> bytes:
    router4, router6 = person.net4[1], person.net6[1]
    me4, me6, udp = person.ip4, person.ip6, wire.UDP
    ping4 = wire.icmp(me4, router4, 8, 0, b"\0\x07\0\x01achelous!")
    ping6 = wire.icmp(me6, router6, 128, 0, b"\0\x07\0\x01achelous")
    local6 = wire.icmp(LOCAL, ROUTER_LINK_LOCAL, 128, 0, b"\0\x07\0\x01achelous")
    routers = IPv6Address("ff02::2")
    mdns = wire.udp(LOCAL, IPv6Address("ff02::fb"), 5353, 5353, b"?")
    report = bytes([58, 0, 5, 2, 0, 0, 1, 0]) + bytes([143]) + bytes(7)
    frames = {
        "ra": lambda: _six(person, LOCAL, ALL_NODES, bytes([134]) + bytes(23), hops=255),
        "redirect": lambda: _six(person, LOCAL, ALL_NODES, bytes([137]) + bytes(39), hops=255),
        "rs": lambda: _six(person, LOCAL, routers, bytes([133]) + bytes(7), hops=255),
        "mld": lambda: _six(person, LOCAL, IPv6Address("ff02::16"), report, following=0, hops=1),
        "mdns": lambda: _six(person, LOCAL, IPv6Address("ff02::fb"), mdns, following=udp),
        "mdns hop": lambda: _six(
            person, LOCAL, IPv6Address("ff02::fb"), bytes([17, 0]) + bytes(6) + mdns, following=0
        ),
        "ping local router": lambda: _six(person, LOCAL, ROUTER_LINK_LOCAL, local6),
        "ping local": lambda: _six(person, LOCAL, IPv6Address("fe80::66"), local6),
        "udp local": lambda: _six(person, LOCAL, ROUTER_LINK_LOCAL, mdns, following=udp),
        "dhcp": lambda: _four(person, ALL4, udp, wire.udp(ANY4, ALL4, 68, 67, bytes(240))),
        "dhcp router": lambda: _four(person, router4, udp, wire.udp(me4, router4, 68, 67, b"")),
        "dhcp6": lambda: _six(
            person, LOCAL, IPv6Address("ff02::1:2"), wire.udp(LOCAL, ALL_NODES, 546, 547, b"\1"),
            following=udp,
        ),
        "ping router": lambda: _four(person, router4, wire.ICMP, ping4, hops=1, ident=5, tos=8),
        "ping router 6": lambda: _six(person, me6, router6, ping6, hops=1),
        "udp router": lambda: _four(person, router4, udp, wire.udp(me4, router4, 1, 53, b"?")),
        "udp router 6": lambda: _six(
            person, me6, router6, wire.udp(me6, router6, 1, 53, b"?"), following=udp
        ),
        "tcp router": lambda: _four(
            person, router4, wire.TCP, wire.tcp(me4, router4, 1, 80, 2, b"")
        ),
        "ping router piece": lambda: _four(person, router4, wire.ICMP, ping4, flags=wire.MORE),
        "ping router options": lambda: _four(
            person, router4, wire.ICMP, ping4, options=b"\x01" * 4
        ),
        "timestamp router": lambda: _four(
            person, router4, wire.ICMP, wire.icmp(me4, router4, 13, 0, bytes(16))
        ),
        "ping router extension": lambda: _six(
            person, me6, router6, bytes([58, 0]) + bytes(6) + ping6, following=wire.DESTINATION
        ),
        "na behind options": lambda: _six(
            person, me6, BEN.ip6, bytes([58, 0]) + bytes(6) + _discovery(NA, me6),
            following=wire.DESTINATION, hops=255,
        ),
    }  # fmt: skip
    return frames[what]()
