"""Packets that end anywhere, in truth or by their headers' word: a counted drop, or all is there.

ARP, neighbour discovery and DHCP that end too early are in the files of those.
"""

from dataclasses import dataclass
from typing import Any

import pytest
from packets.datapath import OWN_VTEP, PEER_VTEP, VNI, Datapath, Port
from packets.frames import Guest, frame, guest, ping, ping6, tcp, udp, vxlan
from packets.outcome import Outcome, Verdict
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)

pytestmark = pytest.mark.kernel

ME, ME6 = guest("10.0.0.5"), Guest("fd00::5", guest("10.0.0.5").mac)
PEER, PEER6 = guest("10.0.0.9"), Guest("fd00::9", guest("10.0.0.9").mac)
HEADERS = {4: 20, 6: 40}
ETHERNET, OUTER = 14, 50


@dataclass(frozen=True, slots=True)
class Kind:
    """A packet between two guests. `least`: so many bytes of IP must be there for its ports."""

    version: int
    least: int
    layers: tuple[Any, ...]
    fields: dict[str, Any]

    def between(self, sender: tuple[Guest, Guest], to: tuple[Guest, Guest]) -> bytes:
        six = self.version == 6
        return frame(sender[six], to[six].ip, *self.layers, **self.fields)


def four(least: int, *layers: Any, **fields: Any) -> Kind:
    return Kind(4, least, layers, fields)


def six(least: int, *layers: Any, **fields: Any) -> Kind:
    return Kind(6, least, layers, fields)


TCP_WITH_OPTIONS = bytes(TCP(sport=1000, dport=80, flags="S", options=[("MSS", 1460)]))
KINDS = {
    "UDP": four(28, udp()),
    "TCP": four(40, tcp()),
    "TCP with options": four(44, TCP_WITH_OPTIONS, proto=6),
    "ping": four(28, ping()),
    "UDP behind options": four(48, udp(), options=b"\x01" * 20),
    "a first fragment": four(28, udp(), flags="MF", id=3),
    "GRE": four(20, b"achelous", proto=47),
    "UDP/6": six(48, udp()),
    "TCP/6": six(60, tcp()),
    "ping/6": six(48, ping6()),
    "UDP behind hop-by-hop options": six(56, IPv6ExtHdrHopByHop(), udp()),
    "TCP behind two extension headers": six(76, IPv6ExtHdrDestOpt(), IPv6ExtHdrDestOpt(), tcp()),
    "a first fragment/6": six(56, IPv6ExtHdrFragment(m=1, id=3), udp()),
    "no next header": six(40, nh=59),
}
US, THEM = (ME, ME6), (PEER, PEER6)


@pytest.fixture
def me(datapath: Datapath) -> Port:
    datapath.configure(learn_interval_ns=0)
    return datapath.port(ME.ip, ip6=ME6.ip)


def shorter(sent: bytes, length: int, version: int) -> bytes:
    """A frame whose IP header says that the packet is `length` long; what follows is padding."""
    at, value = (16, length) if version == 4 else (18, length - 40)
    return sent[:at] + value.to_bytes(2) + sent[at + 2 :]


def in_vxlan(inner: bytes) -> bytes:
    return vxlan(inner, vteps=(PEER_VTEP, OWN_VTEP), vni=VNI, dmac=ME.mac)


def check(outcome: Outcome, *, whole: bool, note: object) -> None:
    if whole:
        assert outcome.verdict is Verdict.REDIRECT, note
    else:
        assert outcome.verdict is Verdict.DROP, note
        assert [*outcome.counted.values()] == [{"TRUNCATED": 1}], note


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_a_guest_sends_says_how_long_it_is(datapath: Datapath, me: Port, kind: Kind) -> None:
    sent = kind.between(US, THEM)
    for length in range(HEADERS[kind.version], len(sent) - ETHERNET + 1):
        outcome = datapath.send(me, shorter(sent, length, kind.version))
        check(outcome, whole=length >= kind.least, note=length)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_guests_frame_ends_anywhere(datapath: Datapath, me: Port, kind: Kind) -> None:
    sent = kind.between(US, THEM)
    for length in range(ETHERNET + HEADERS[kind.version], len(sent)):
        check(datapath.send(me, sent[:length]), whole=False, note=length)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_arrives_says_how_long_it_is(datapath: Datapath, me: Port, kind: Kind) -> None:
    sent = kind.between(THEM, US)
    for length in range(HEADERS[kind.version], len(sent) - ETHERNET + 1):
        outcome = datapath.receive(in_vxlan(shorter(sent, length, kind.version)))
        outcome.counted.get(me.slot, {}).pop("slow_path", None)
        check(outcome, whole=length >= kind.least, note=length)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_underlay_frame_ends_anywhere_in_its_packet(
    datapath: Datapath, me: Port, kind: Kind
) -> None:
    """As long as its outer headers say, but with a packet in it that is cut short."""
    sent = kind.between(THEM, US)
    for length in range(len(sent)):
        check(datapath.receive(in_vxlan(sent[:length])), whole=False, note=length)
        cut = in_vxlan(sent)[: OUTER + length]
        check(datapath.receive(cut), whole=False, note=length)


QUOTES = {
    "IPv4, UDP": (28, IP(src=PEER.ip, dst=ME.ip) / udp()),
    "IPv4, TCP": (28, IP(src=PEER.ip, dst=ME.ip) / tcp()),
    "IPv4 with options": (48, IP(src=PEER.ip, dst=ME.ip, options=b"\x01" * 20) / udp()),
    "IPv6, UDP": (48, IPv6(src=PEER6.ip, dst=ME6.ip) / udp()),
    "IPv6 with options": (56, IPv6(src=PEER6.ip, dst=ME6.ip) / IPv6ExtHdrDestOpt() / udp()),
}


@pytest.mark.parametrize(("least", "quoted"), QUOTES.values(), ids=QUOTES)
def test_a_quote_ends_anywhere(datapath: Datapath, me: Port, least: int, quoted: Any) -> None:
    """Of a quoted IPv6 packet one cannot tell whether its extension headers or it is short."""
    version = quoted.version
    sender, to = (ME6, PEER6) if version == 6 else (ME, PEER)
    peer = frame(to, sender.ip)[:ETHERNET] + bytes(quoted)
    assert datapath.receive(in_vxlan(peer)).verdict is Verdict.REDIRECT
    error = ICMPv6DestUnreach() if version == 6 else ICMP(type=3, code=3)
    for length in range(len(bytes(quoted)) + 1):
        outcome = datapath.send(me, frame(sender, to.ip, error, bytes(quoted)[:length]))
        if length >= least:
            assert outcome.verdict is Verdict.REDIRECT, length
        else:
            assert outcome.dropped in ("1:TRUNCATED", "1:UNRELATED_ICMP"), length
