"""What must hold of any frame that enters the packet path, whatever is in it."""

from collections.abc import Callable
from typing import Final
from zlib import crc32

from fuzz.packet_input import Entry, Step, decode
from fuzz.packet_world import ADDRESSES6, OTHER_VNI, Counted, PacketWorld
from fuzz.wire import ARP, ETHERNET, IPV4, IPV6, OUTER, flaws, number
from packets.datapath import GATEWAY_VTEP, OWN_VTEP, PEER_VTEP, VNI, Port
from packets.outcome import Verdict
from packets.tables import mac_bytes, mapped

from achelous_shared.names import ROUTER_MAC

_FLEET: Final = {mapped(ip)[12:] for ip in (PEER_VTEP, GATEWAY_VTEP)}
_WAYS: Final = ("local", "direct", "relayed")
_PROTOCOLS: Final = bytes((0, 1, 6, 17, 43, 44, 58, 60))
_ADMITTED: Final = 9  # the identity from which the closed port takes packets


class PacketTarget:
    """Raises AssertionError where it does not hold. `seen` is told the number of each behaviour,
    which is the same for the same behaviour: that is what coverage means here."""

    def __init__(self, world: PacketWorld, seen: Callable[[int], None]) -> None:
        self._world = world
        self._seen = seen
        self._own = {
            slot: {mapped(port.guest.ip), mapped(ip6)}
            for (slot, port), ip6 in zip(world.ports.items(), ADDRESSES6, strict=True)
        }
        self._macs = {slot: mac_bytes(port.guest.mac) for slot, port in world.ports.items()}

    def __call__(self, data: bytes) -> None:
        """All frames of one input, one after the other."""
        self._world.forget()
        opened = False
        for step in decode(data):
            ran = self._world.run(step)
            if ran is None:
                continue
            result, counted = ran
            verdict = Verdict(result.retval)
            opened |= step.entry is Entry.CLOSED and verdict is Verdict.REDIRECT
            self._counted(step, verdict, counted)
            if verdict is Verdict.NEXT:
                assert result.data == step.frame
            elif verdict is Verdict.REDIRECT:
                self._sent_on(step, result.data, counted)
                received = counted.plain.get(Entry.CLOSED, {}).get("rx_packets", 0)
                assert opened or not received or _identity(step) == _ADMITTED
            self._behaved(step, verdict, counted, result.data)

    def _behaved(self, step: Step, verdict: Verdict, counted: Counted, frame: bytes) -> None:
        names = sorted((slot, *sorted(gained)) for slot, gained in counted.plain.items())
        kind, sent = number(step.frame, 12), step.frame
        proto = sent[23:24] if kind == IPV4 else sent[20:21]
        grown = (len(frame) > len(sent)) - (len(frame) < len(sent))
        what = kind * (kind in (ARP, IPV4, IPV6)), proto * (proto in _PROTOCOLS), grown
        behaviour = (step.entry, verdict, names, counted.drops, what)
        self._seen(crc32(repr(behaviour).encode()))

    def _counted(self, step: Step, verdict: Verdict, counted: Counted) -> None:
        """Every packet exactly once, as what it became."""
        assert all(0 < reason < self._world.reasons for _, reason in counted.drops)
        packets = {
            name: sum(gained.get(name, 0) for gained in counted.plain.values())
            for name in ("tx_packets", "rx_packets", "relayed_packets", "probes", *_WAYS)
        }
        sent, received = packets["tx_packets"], packets["rx_packets"]
        assert sent == sum(packets[way] for way in _WAYS)
        match verdict:
            case Verdict.NEXT:
                assert step.entry in (Entry.UNDERLAY, Entry.GATEWAY)
                assert not counted.drops
                assert not any(packets.values())
            case Verdict.DROP:
                assert len(counted.drops) == 1 or _may_be_consumed(step)
                assert len(counted.drops) <= 1
                assert not any(packets.values())
            case Verdict.REDIRECT if step.entry is Entry.GATEWAY:
                assert packets["relayed_packets"] + packets["probes"] == 1
                assert not counted.drops
            case Verdict.REDIRECT if step.entry is Entry.UNDERLAY:
                assert (sent, received) == (0, 1)
                assert not counted.drops
            case Verdict.REDIRECT:
                assert sent <= 1
                assert received == packets["local"]
                assert len(counted.drops) <= (0 if sent else 1)

    def _sent_on(self, step: Step, frame: bytes, counted: Counted) -> None:
        if step.entry is Entry.GATEWAY:
            if counted.plain[0].get("relayed_packets"):
                self._relayed(step, frame)
            return
        if step.entry is Entry.UNDERLAY:
            self._arrived(step, frame, counted)
            return
        assert step.frame[6:12] == self._macs[step.entry]
        sent = counted.plain.get(step.entry, {})
        if not sent.get("tx_packets"):
            self._answered(step, frame)
            return
        assert _address(step.frame, ETHERNET) in self._own[step.entry]
        if sent.get("local"):
            self._delivered(step.frame[12:], frame, counted)
        else:
            self._encapsulated(step, frame)

    def _arrived(self, step: Step, frame: bytes, counted: Counted) -> None:
        """Out of a tunnel of the fleet's, for the vNIC that it names, and not from one of ours."""
        sent = step.frame
        assert sent[26:30] in _FLEET
        assert sent[30:34] == mapped(OWN_VTEP)[12:]
        inner = sent[ETHERNET + OUTER - 14 :]
        slot = self._delivered(inner[12:], frame, counted)
        port = self._world.ports[slot]
        assert int.from_bytes(sent[46:49], "big") == port.vni
        assert inner[:6] == self._macs[slot]
        assert not any(
            _address(inner, ETHERNET) in self._own[other.slot] and other.vni == port.vni
            for other in self._world.ports.values()
        )

    def _delivered(self, sent: bytes, frame: bytes, counted: Counted) -> int:
        """What was sent, from its EtherType on, reaches a vNIC; returns the vNIC's slot."""
        [slot] = [slot for slot, gained in counted.plain.items() if gained.get("rx_packets")]
        assert frame[:12] == self._macs[slot] + ROUTER_MAC
        assert _address(frame, ETHERNET, destination=True) in self._own[slot]
        _same_packet(sent, frame[12:])
        return slot

    def _encapsulated(self, step: Step, frame: bytes) -> None:
        port: Port = self._world.ports[step.entry]
        assert number(frame, 12) == IPV4
        assert not flaws(frame[ETHERNET:])
        assert len(frame) == len(step.frame) + OUTER
        assert number(frame, 16) == len(frame) - ETHERNET
        assert frame[26:30] == mapped(OWN_VTEP)[12:]
        assert frame[30:34] in _FLEET
        policy = bytes([0x88, 0, 0, 7]) if port.slot == Entry.ME else bytes([0x08, 0, 0, 0])
        assert frame[42:50] == policy + (port.vni << 8).to_bytes(4, "big")
        inner = frame[OUTER:]
        assert inner[6:12] == self._macs[port.slot]
        assert _address(inner, ETHERNET) in self._own[port.slot]
        _same_packet(step.frame[12:], inner[12:])

    def _relayed(self, step: Step, frame: bytes) -> None:
        """New outer addresses, one hop less, the receiver's MAC; nothing else."""
        sent = step.frame
        assert frame[26:30] == mapped(GATEWAY_VTEP)[12:]
        assert frame[30:34] == mapped(PEER_VTEP)[12:]
        assert frame[22] == sent[22] - 1
        assert not flaws(frame[ETHERNET:]) - flaws(sent[ETHERNET:])
        assert frame[42:50] == sent[42:50]
        assert int.from_bytes(sent[46:49], "big") in (VNI, OTHER_VNI)
        assert frame[56:] == sent[56:]

    def _answered(self, step: Step, frame: bytes) -> None:
        """The router speaks to its guest, and says what is well formed."""
        assert frame[:12] == self._macs[step.entry] + ROUTER_MAC
        kind = number(frame, 12)
        assert kind == number(step.frame, 12)
        if kind == ARP:
            assert frame[22:28] == ROUTER_MAC
            assert number(frame, 20) == 2
            return
        assert _address(frame, ETHERNET) not in self._own[step.entry]
        assert not flaws(frame[ETHERNET:]) - flaws(step.frame[ETHERNET:])


def _same_packet(sent: bytes, got: bytes) -> None:
    """EtherType and IP packet are the same but for a hop less and a congestion mark, and what was
    right is right."""
    assert sent[:2] == got[:2]
    before, after = bytearray(sent[2:]), bytearray(got[2:])
    hop = 8 if number(sent, 0) == IPV4 else 7
    assert before[hop] == after[hop] or before[hop] == after[hop] + 1 > 1
    for packet in (before, after):
        if number(sent, 0) == IPV4:
            packet[1] &= 0xFC
            packet[8] = 0
            packet[10:12] = b""
        else:
            packet[1] &= 0xCF
            packet[7] = 0
    assert before == after
    assert not flaws(got[2:]) - flaws(sent[2:])


def _address(frame: bytes, at: int, *, destination: bool = False) -> bytes:
    """The source or destination address of the IP packet at `at`, as keys have it."""
    if number(frame, at - 2) == IPV4:
        begin = at + (16 if destination else 12)
        return bytes(10) + b"\xff\xff" + frame[begin : begin + 4]
    begin = at + (24 if destination else 8)
    return frame[begin : begin + 16]


def _identity(step: Step) -> int:
    """The group policy that a frame of the underlay carries."""
    named = step.entry is Entry.UNDERLAY and step.frame[42] & 0x80
    return number(step.frame, 44) if named else 0


def _may_be_consumed(step: Step) -> bool:
    """ARP, DHCP and neighbour discovery: what needs no answer is no drop."""
    kind = number(step.frame, 12)
    return step.entry in (1, 2, 3, 4) and (
        kind in (ARP, IPV6) or (kind == IPV4 and step.frame[23] == 17)
    )
