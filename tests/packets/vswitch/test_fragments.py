"""Fragments follow the first one of their datagram, which alone has ports."""

from typing import Any

import pytest
from packets.datapath import OWN_VTEP, PEER_VTEP, VNI, Datapath, Port, Rule
from packets.frames import delivered, frame, guest, tcp, udp, vxlan
from packets.outcome import Verdict
from scapy.layers.inet import IP, fragment

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
