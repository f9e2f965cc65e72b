"""Fragments follow the first one of their datagram, whose ports they have and cannot change."""

from typing import Any

import pytest
from packets.datapath import OWN_VTEP, PEER_VTEP, VNI, Datapath, Port, Rule
from packets.frames import Guest, delivered, frame, guest, tcp, udp, vxlan
from packets.outcome import Verdict
from scapy.layers.inet import IP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, fragment6

pytestmark = pytest.mark.kernel

ME = guest("10.0.0.5")
NEIGHBOUR = guest("10.0.0.6")
PEER = guest("10.0.0.9")


def fragments(identification: int = 77, transport: Any = None) -> list[bytes]:
    """A datagram of ME to NEIGHBOUR in three fragments."""
    transport = udp(payload=bytes(3000)) if transport is None else transport
    whole = IP(src=ME.ip, dst=NEIGHBOUR.ip, id=identification) / transport
    parts = fragment(IP(bytes(whole)), fragsize=1200)
    header = frame(ME, NEIGHBOUR.ip)[:14]
    return [header + bytes(part) for part in parts]


@pytest.fixture
def me(datapath: Datapath) -> Port:
    """May send UDP to port 2000 alone, and has a neighbour that takes the same."""
    only = [Rule(proto=17, ports=(2000, 2000))]
    datapath.port(NEIGHBOUR.ip, allow_in=only)
    return datapath.port(ME.ip, allow_out=only)


def test_all_fragments_of_a_datagram_pass(datapath: Datapath, me: Port) -> None:
    parts = fragments()
    assert len(parts) == 3
    for part in parts:
        outcome = datapath.send(me, part)
        assert outcome.frame == delivered(part, NEIGHBOUR)
    (session,) = datapath.sessions()
    assert session["packets"].sum() == 3


def test_a_later_fragment_without_its_first_is_dropped(datapath: Datapath, me: Port) -> None:
    for part in fragments()[1:]:
        assert datapath.send(me, part).counted == {me.slot: {"FRAGMENT": 1}}


@pytest.mark.parametrize(
    "other",
    [fragments(78)[1], fragments(transport=tcp(payload=bytes(3000)))[1]],
    ids=["identification", "protocol"],
)
def test_a_fragment_of_another_datagram_is_dropped(
    datapath: Datapath, me: Port, other: bytes
) -> None:
    datapath.send(me, fragments()[0])
    assert datapath.send(me, other).dropped == f"{me.slot}:FRAGMENT"


def test_a_fragment_in_another_vpc_is_another_datagram(datapath: Datapath, me: Port) -> None:
    twin = datapath.port(ME.ip, vni=VNI + 1)
    datapath.send(me, fragments()[0])
    assert datapath.send(twin, fragments()[1]).dropped == f"{twin.slot}:FRAGMENT"


def test_rules_apply_to_every_fragment(datapath: Datapath, me: Port) -> None:
    for part in fragments(transport=udp(dport=2001, payload=bytes(3000))):
        assert datapath.send(me, part).dropped == f"{me.slot}:ACL_EGRESS"


def test_a_first_fragment_too_short_for_its_ports_is_dropped(datapath: Datapath, me: Port) -> None:
    tiny = frame(ME, NEIGHBOUR.ip, b"\x03\xe8\x07", flags="MF", proto=17)
    assert datapath.send(me, tiny).counted == {me.slot: {"TRUNCATED": 1}}


def test_fragments_from_another_host_are_delivered(datapath: Datapath) -> None:
    here = datapath.port(NEIGHBOUR.ip)
    parts = fragments()
    arriving = [
        vxlan(part, vteps=(PEER_VTEP, OWN_VTEP), vni=VNI, dmac=NEIGHBOUR.mac) for part in parts
    ]
    assert datapath.receive(arriving[1]).counted == {here.slot: {"FRAGMENT": 1}}
    for part, sent in zip(parts, arriving, strict=True):
        outcome = datapath.receive(sent)
        assert outcome.verdict is Verdict.REDIRECT
        assert outcome.frame == delivered(part, NEIGHBOUR)


def later(offset: int, payload: bytes = bytes(16), **fields: Any) -> bytes:
    """A fragment of the datagram 77 from ME, `offset` in bytes."""
    return frame(ME, NEIGHBOUR.ip, payload, id=77, frag=offset // 8, **{"proto": 17} | fields)


def first_tcp(datapath: Datapath, me: Port) -> None:
    """The first fragment of a TCP segment to port 80 has passed."""
    only = [Rule(proto=6, ports=(80, 80))]
    datapath.allow(me, out=only)
    datapath.allow(datapath.ports[0], into=only)
    sent = fragments(transport=tcp(payload=bytes(3000)))[0]
    assert datapath.send(me, sent).verdict is Verdict.REDIRECT


@pytest.mark.parametrize(("offset", "passes"), [(8, False), (16, False), (24, True)])
def test_a_fragment_may_not_overwrite_a_tcp_header(
    datapath: Datapath, me: Port, offset: int, passes: bool
) -> None:
    """Its flags decide how the session goes on (RFC 1858)."""
    first_tcp(datapath, me)
    outcome = datapath.send(me, later(offset, proto=6, flags="MF"))
    assert outcome.dropped == (None if passes else f"{me.slot}:FRAGMENT")


def test_a_second_first_fragment_is_judged_by_its_own_ports(datapath: Datapath, me: Port) -> None:
    """Both cannot be admitted unless both ports are."""
    assert datapath.send(me, fragments()[0]).verdict is Verdict.REDIRECT
    hidden = fragments(transport=udp(dport=2001, payload=bytes(3000)))
    for part in hidden:
        assert datapath.send(me, part).dropped == f"{me.slot}:ACL_EGRESS"


def test_the_first_fragment_last_comes_too_late(datapath: Datapath, me: Port) -> None:
    """Nothing is kept for later: those before it are lost, and its sender sends them again."""
    first, *others = fragments()
    assert [datapath.send(me, part).dropped for part in reversed(others)] == [
        f"{me.slot}:FRAGMENT"
    ] * 2
    assert datapath.send(me, first).verdict is Verdict.REDIRECT
    assert [datapath.send(me, part).verdict for part in others] == [Verdict.REDIRECT] * 2


def test_a_sender_who_lies_leaves_no_ports_behind(datapath: Datapath, me: Port) -> None:
    """Else it could have another vNIC's fragments judged by ports of its choice."""
    third = datapath.port("10.0.0.7")
    forged = frame(ME, NEIGHBOUR.ip)[:14] + fragments()[0][14:]
    forged = forged[:6] + bytes.fromhex(third.guest.mac.replace(":", "")) + forged[12:]
    assert datapath.send(third, forged).dropped == f"{third.slot}:SPOOFED_IP"
    assert datapath.send(me, fragments()[1]).dropped == f"{me.slot}:FRAGMENT"


# ---- IPv6 ------------------------------------------------------------------------------------

ME6 = Guest("fd00::5", ME.mac)
NEIGHBOUR6 = Guest("fd00::6", NEIGHBOUR.mac)


@pytest.fixture
def me6(datapath: Datapath) -> Port:
    only = [Rule("fd00::/64", 17, (2000, 2000)), Rule("fd00::/64", 6, (80, 80))]
    datapath.port(NEIGHBOUR.ip, ip6=NEIGHBOUR6.ip, allow_in=only)
    return datapath.port(ME.ip, ip6=ME6.ip, allow_out=only)


def fragments6(*layers: Any, size: int = 1200) -> list[bytes]:
    """`layers` from ME6 to NEIGHBOUR6, divided behind the fragment header."""
    head = IPv6(src=ME6.ip, dst=NEIGHBOUR6.ip) / IPv6ExtHdrFragment(id=0x10004D)
    whole = head
    for layer in layers:
        whole /= layer
    ethernet = frame(ME6, NEIGHBOUR6.ip)[:14]
    return [ethernet + bytes(part) for part in fragment6(whole, size)]


def test_all_fragments_of_an_ipv6_datagram_pass(datapath: Datapath, me6: Port) -> None:
    parts = fragments6(udp(payload=bytes(3000)))
    assert len(parts) == 3
    for part in parts:
        assert datapath.send(me6, part).frame == delivered(part, NEIGHBOUR6)
    (session,) = datapath.sessions()
    assert session["packets"].sum() == 3


def test_ports_behind_options_of_the_first_fragment_count(datapath: Datapath, me6: Port) -> None:
    allowed = fragments6(IPv6ExtHdrDestOpt(), udp(payload=bytes(3000)))
    for part in allowed:
        assert datapath.send(me6, part).frame == delivered(part, NEIGHBOUR6)
    for part in fragments6(IPv6ExtHdrDestOpt(), udp(dport=2001, payload=bytes(3000))):
        assert datapath.send(me6, part).dropped == f"{me6.slot}:ACL_EGRESS"


def raw6(offset: int, payload: bytes, *, more: int = 1, nh: int = 17) -> bytes:
    header = IPv6ExtHdrFragment(id=7, m=more, offset=offset // 8, nh=nh)
    return frame(ME6, NEIGHBOUR6.ip, header, payload)


def test_headers_must_be_whole_in_the_first_fragment(datapath: Datapath, me6: Port) -> None:
    """RFC 7112."""
    options = bytes([17, 3]) + bytes(30)
    for cut in (bytes(udp())[:7], bytes(tcp())[:19]):
        proto = 17 if len(cut) == 7 else 6
        assert datapath.send(me6, raw6(0, cut, nh=proto)).dropped == f"{me6.slot}:TRUNCATED"
    assert datapath.send(me6, raw6(0, options[:24], nh=60)).dropped == f"{me6.slot}:TRUNCATED"


@pytest.mark.parametrize(("offset", "passes"), [(8, False), (16, False), (24, True)])
def test_an_ipv6_fragment_may_not_overwrite_the_first_ones_headers(
    datapath: Datapath, me6: Port, offset: int, passes: bool
) -> None:
    datapath.send(me6, raw6(0, bytes(tcp(payload=bytes(100))), nh=6))
    outcome = datapath.send(me6, raw6(offset, bytes(16), nh=6))
    assert outcome.dropped == (None if passes else f"{me6.slot}:FRAGMENT")


def test_a_later_ipv6_fragment_without_its_first_is_dropped(datapath: Datapath, me6: Port) -> None:
    assert datapath.send(me6, raw6(1200, bytes(100))).counted == {me6.slot: {"FRAGMENT": 1}}
