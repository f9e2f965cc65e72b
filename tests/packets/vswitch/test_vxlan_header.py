"""The VXLAN header bit by bit: RFC 7348, section 5, and draft-smith-vxlan-group-policy."""

import pytest
from packets.datapath import OWN_VTEP, PEER_VTEP, VNI, Datapath, Rule
from packets.frames import Guest, delivered, frame, guest, ping, tcp, udp, vxlan
from packets.outcome import Verdict
from scapy.layers.inet import IP, fragment

pytestmark = pytest.mark.kernel

ME, ME6 = guest("10.0.0.5"), Guest("fd00::5", guest("10.0.0.5").mac)
PEER, PEER6 = guest("10.0.0.9"), guest("fd00::9")
HEADER = slice(42, 50)
INNER = frame(PEER, ME.ip, udp())
WEB = 17
G, I = 0x80, 0x08  # noqa: E741 - as the RFC calls them
DONT_LEARN, APPLIED = 0x40, 0x08
"""Flags D and A, in the second byte."""


def arriving(header: bytes, inner: bytes = INNER) -> bytes:
    sent = vxlan(inner, vteps=(PEER_VTEP, OWN_VTEP), vni=VNI, dmac=ME.mac)
    return sent[: HEADER.start] + header + sent[HEADER.stop :]


def header(flags: int, more: int = 0, identity: int = 0, vni: int = VNI, last: int = 0) -> bytes:
    return bytes([flags, more]) + identity.to_bytes(2) + vni.to_bytes(3) + bytes([last])


def with_bit(number: int) -> bytes:
    """A header of which that bit, counted from 0 as RFCs do, is the other way round."""
    return (int.from_bytes(header(I)) ^ 1 << 63 - number).to_bytes(8)


RESERVED = [bit for bit in range(64) if bit not in (0, 4) and not 32 <= bit < 56]


def test_every_reserved_bit_is_ignored(datapath: Datapath) -> None:
    """Also those of the group policy extension but for G: without it they are reserved."""
    datapath.port(ME.ip)
    for bit in RESERVED:
        assert datapath.receive(arriving(with_bit(bit))).frame == delivered(INNER, ME), bit


def test_every_bit_of_the_vni_counts(datapath: Datapath) -> None:
    datapath.port(ME.ip)
    for bit in range(32, 56):
        outcome = datapath.receive(arriving(with_bit(bit)))
        assert outcome.counted == {0: {"UNKNOWN_VNI": 1}}, bit


@pytest.mark.parametrize("flags", [0, 0x80, 0xF7, 0x01])
def test_without_flag_i_there_is_no_vni(datapath: Datapath, flags: int) -> None:
    datapath.port(ME.ip)
    outcome = datapath.receive(arriving(header(flags, 0xFF, 0xFFFF, last=0xFF)))
    assert outcome.counted == {0: {"BAD_VXLAN": 1}}


POLICY = {
    "no group": (header(I), False),
    "its number": (header(G | I, 0, WEB), True),
    "another number": (header(G | I, 0, WEB + 1), False),
    "the number 0": (header(G | I), False),
    "the number without G": (header(I, 0, WEB), False),
    "its number, do not learn": (header(G | I, DONT_LEARN, WEB), True),
    "its number, policy applied": (header(G | I, APPLIED, WEB), True),
    "another number, policy applied": (header(G | I, APPLIED, WEB + 1), False),
    "no group, policy applied": (header(I, APPLIED), False),
    "its number, all reserved bits": (header(0xFF, 0xFF, WEB, last=0xFF), True),
}


@pytest.mark.parametrize(("sent", "allowed"), POLICY.values(), ids=POLICY)
def test_rules_go_by_the_number_and_are_always_asked(
    datapath: Datapath, sent: bytes, allowed: bool
) -> None:
    """Nobody but the receiver's host can have applied its ingress rules (decision 0009)."""
    datapath.port(ME.ip, allow_in=[Rule(identities=(WEB,))])
    outcome = datapath.receive(arriving(sent))
    assert outcome.dropped == (None if allowed else "1:ACL_INGRESS")


@pytest.mark.parametrize("identity", [0, WEB])
@pytest.mark.parametrize("known", [True, False], ids=["direct", "relayed"])
def test_reserved_bits_go_out_as_zeros(datapath: Datapath, identity: int, known: bool) -> None:
    """And so do D and A: what its rules allow the receiver's may still refuse."""
    me = datapath.port(ME.ip, ip6=ME6.ip, identity=identity)
    if known:
        datapath.route(PEER.ip)
        datapath.route(PEER6.ip)
    parts = fragment(IP(src=ME.ip, dst=PEER.ip, id=7) / udp(payload=bytes(2000)), 1200)
    ethernet = frame(ME, PEER.ip)[:14]
    for sent in (
        frame(ME, PEER.ip, udp()),
        frame(ME, PEER.ip, tcp(), tos=0xFF),
        frame(ME, PEER.ip, ping(), options=b"\x01" * 40),
        frame(ME6, PEER6.ip, tcp(), tc=0xFF, fl=0xFFFFF),
        *(ethernet + bytes(part) for part in parts),
    ):
        outcome = datapath.send(me, sent)
        assert outcome.verdict is Verdict.REDIRECT
        assert outcome.frame[HEADER] == header(I | (G if identity else 0), 0, identity)
