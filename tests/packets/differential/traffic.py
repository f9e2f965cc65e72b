"""The frames of steps: of a guest here as it sends them, of others in VXLAN."""

from dataclasses import dataclass, field
from struct import pack
from typing import Final, NamedTuple

from model import wire
from model.sessions import ACK, SYN
from model.world import ROUTER_MAC
from packets.differential import local, odd
from packets.differential.people import OWN_VTEP, PEER_VTEP, THIRD, Person
from packets.differential.situations import TIMESTAMP, Talk
from packets.differential.steps import (
    Bend,
    Break,
    Complain,
    Lie,
    Local,
    Packets,
    Piece,
    Say,
    Scan,
    Shake,
)  # fmt: skip

ERRORS: Final = {4: (3, 4, 5, 11, 12), 6: (1, 2, 3, 4, 1)}
ROUTING_0: Final = 1043


class Sent(NamedTuple):
    """A frame on its way in. `slot`: of the vNIC that sends it; 0: it comes from the underlay."""

    slot: int
    frame: bytes
    segment: int = 0


@dataclass(slots=True)
class Traffic:
    """The frames of a situation. `identities`: of the guests elsewhere, by name, 0 unless set."""

    talks: tuple[Talk, ...]
    identities: dict[str, int] = field(default_factory=dict)

    def frames(self, step: Packets) -> list[Sent]:
        match step:
            case Shake():
                flags = ((False, SYN), (True, SYN | ACK), (False, ACK))
                return [self._say(Say(step.talk, back, flag)) for back, flag in flags]
            case Scan():
                return [self._scan(step.talk, port) for port in range(step.count)]
            case Say():
                return [self._say(step)]
            case Piece():
                return [self._piece(step)]
            case Complain():
                return [self._complain(step)]
            case Break():
                return [self._break(step)]
            case Local():
                return [Sent(step.person.slot, local.frame(step.person, step.what))]
            case Lie():
                return [self._lie(step)]
            case Bend():
                return [self._bend(step)]

    def _talk(self, number: int) -> Talk:
        return self.talks[number % len(self.talks)]

    def _say(self, step: Say) -> Sent:
        talk = self._talk(step.talk)
        sender, receiver = talk.ends(back=step.back)
        message = transport(talk, back=step.back, flags=step.flags, data=bytes(step.size))
        segment = step.segment if sender.slot else 0
        if talk.version == 4:
            packet = wire.ipv4(
                sender.ip4, receiver.ip4, talk.protocol, message, tos=step.tos, hops=step.hops
            )
        else:
            first, extended = behind(step.extensions, talk.protocol, message)
            packet = wire.ipv6(
                sender.ip6, receiver.ip6, first, extended, traffic_class=step.tos, hops=step.hops
            )
        return self.carried(sender, receiver, packet)._replace(segment=segment)

    def _scan(self, number: int, port: int) -> Sent:
        talk = self._talk(number)
        sender, receiver = talk.ends(back=False)
        ends = (sender.address(talk.version), receiver.address(talk.version))
        message = wire.tcp(*ends, 3000 + port, 80, SYN, b"")
        return self.carried(sender, receiver, wire.packet(*ends, wire.TCP, message))

    def _piece(self, step: Piece) -> Sent:
        talk = self._talk(step.talk)
        sender, receiver = talk.ends(back=step.back)
        message = transport(talk, back=step.back, flags=ACK, data=bytes(400))
        part = message[step.offset : step.offset + step.size]
        if talk.version == 4:
            packet = wire.ipv4(
                sender.ip4, receiver.ip4, talk.protocol, part, hops=step.hops, ident=step.ident,
                flags=int(step.more), offset=step.offset,
            )  # fmt: skip
        else:
            place = step.offset | step.more
            header = pack("!BBHI", talk.protocol, 0, place, step.ident)
            packet = wire.ipv6(
                sender.ip6, receiver.ip6, wire.FRAGMENT, header + part, hops=step.hops
            )
        return self.carried(sender, receiver, packet)

    def _complain(self, step: Complain) -> Sent:
        talk = self._talk(step.talk)
        sender, receiver = talk.ends(back=step.back)
        quoted = self._plain(talk, back=step.back, shift=int(step.other_port))[: step.cut]
        teller, told = receiver, sender
        if step.by == "sender":
            teller, told = sender, receiver
        elif step.by == "third":
            teller = THIRD[sender.vni]
        ends = (teller.address(talk.version), told.address(talk.version))
        kind = ERRORS[talk.version][step.kind]
        message = wire.icmp(*ends, kind, 0, bytes(4) + quoted)
        protocol = wire.ICMP if talk.version == 4 else wire.ICMPV6
        packet = wire.packet(*ends, protocol, message, hops=step.hops)
        return self.carried(teller, told, packet)

    def _plain(self, talk: Talk, *, back: bool, shift: int = 0) -> bytes:
        """A packet of the talk without further ado."""
        sender, receiver = talk.ends(back=back)
        ends = (sender.address(talk.version), receiver.address(talk.version))
        message = transport(talk, back=back, flags=SYN, data=bytes(8), shift=shift)
        return wire.packet(*ends, talk.protocol, message)

    def _break(self, step: Break) -> Sent:
        sent = self._say(Say(step.talk, step.back))
        start = 0 if sent.slot else 50
        at = start + step.at
        least = 54 if sent.frame[12:14] == b"\x86\xdd" else 34  # a test run refuses shorter ones
        broken = bytearray(sent.frame)
        if at < len(broken) and at not in (12, 13):
            broken[at] ^= step.xor
        keep = max(least, len(broken) * step.keep // 64)
        return sent._replace(frame=bytes(broken[:keep]) + bytes(step.pad))

    def _lie(self, step: Lie) -> Sent:
        talk = self._talk(step.talk)
        back = not talk.first.slot
        sender, receiver = talk.ends(back=back)
        return Sent(sender.slot, odd.lie(sender, receiver, talk.version, step.what))

    def _bend(self, step: Bend) -> Sent:
        talk = self._talk(step.talk)
        _, receiver = talk.ends(back=step.back)
        if not receiver.slot:
            receiver = talk.ends(back=not step.back)[1]
        sender = THIRD[receiver.vni]
        return Sent(0, odd.bend(sender, receiver, talk.version, step.what))

    def carried(self, sender: Person, receiver: Person, packet: bytes) -> Sent:
        """From the vNIC here, or in VXLAN from the host of a guest elsewhere."""
        ethertype = wire.IPV6 if packet[0] >> 4 == 6 else wire.IPV4
        if sender.slot:
            frame = wire.ethernet(ROUTER_MAC, sender.mac, ethertype) + packet
            return Sent(sender.slot, frame)
        inner = wire.ethernet(receiver.mac, sender.mac, ethertype) + packet
        identity = self.identities.get(sender.name, 0)
        inside = wire.vxlan_header(sender.vni, identity) + inner
        outer = wire.tunnel(PEER_VTEP, OWN_VTEP, 50_000, inside, tos=_traffic_class(packet))
        return Sent(0, odd.UNDERLAY + outer)


def _traffic_class(packet: bytes) -> int:
    return packet[1] if packet[0] >> 4 == 4 else packet[0] << 4 & 0xF0 | packet[1] >> 4


def transport(talk: Talk, *, back: bool, flags: int, data: bytes, shift: int = 0) -> bytes:
    """A message of the talk; `shift` is added to its ports."""
    sender, receiver = talk.ends(back=back)
    ends = (sender.address(talk.version), receiver.address(talk.version))
    sport, dport = (port + shift for port in talk.ports(back=back))
    match talk.protocol:
        case wire.TCP:
            return wire.tcp(*ends, sport, dport, flags, data)
        case wire.UDP:
            return wire.udp(*ends, sport, dport, data)
        case wire.ICMP | wire.ICMPV6:
            kinds = (8, 0) if talk.version == 4 else (128, 129)
            if talk.dport == TIMESTAMP:
                kinds = (TIMESTAMP, TIMESTAMP + 1)
            return wire.icmp(*ends, kinds[back], 0, pack("!HH", sport, 1) + data)
        case _:
            return data


def behind(kinds: tuple[int, ...], protocol: int, message: bytes) -> tuple[int, bytes]:
    """The message behind extension headers, and the kind of the first."""
    following = protocol
    for kind in reversed(kinds):
        routing_type = 0 if kind == ROUTING_0 else 4
        number = wire.ROUTING if kind == ROUTING_0 else kind
        body = bytes(6) if number != wire.ROUTING else bytes([routing_type]) + bytes(5)
        message = bytes([following, 0]) + body + message
        following = number
    return following, message
