"""An ICMP error passes where an answer to the packet that it quotes would, and nowhere else."""

from typing import Any

import pytest
from packets.datapath import ANYTHING, OWN_VTEP, PEER_VTEP, VNI, Datapath, Port
from packets.frames import Guest, delivered, frame, guest, ping, ping6, tcp, udp, vxlan
from packets.outcome import Outcome, Verdict
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)

pytestmark = pytest.mark.kernel

ME, ME6 = guest("10.0.0.5"), Guest("fd00::5", guest("10.0.0.5").mac)
OTHER, OTHER6 = guest("10.0.0.6"), Guest("fd00::6", guest("10.0.0.6").mac)
THIRD = guest("10.0.0.7")
PEER, PEER6 = guest("10.0.0.9"), guest("fd00::9")
UNREACHABLE = ICMP(type=3, code=3)


@pytest.fixture
def me(datapath: Datapath) -> Port:
    """ME may speak first to anybody; nobody may to it."""
    datapath.port(OTHER.ip, ip6=OTHER6.ip, allow_out=[])
    datapath.port(THIRD.ip)
    return datapath.port(ME.ip, ip6=ME6.ip, allow_in=[])


def told(datapath: Datapath, *layers: Any) -> Outcome:
    """OTHER sends an error to ME."""
    sender, to = (OTHER6, ME6) if layers[0].name.startswith("ICMPv6") else (OTHER, ME)
    return datapath.send(datapath.ports[0], frame(sender, to.ip, *layers))


def quote(transport: Any, **fields: Any) -> Any:
    """A packet of ME to OTHER, as the error has it."""
    return IP(src=ME.ip, dst=OTHER.ip, **fields) / transport


def quote6(*layers: Any, **fields: Any) -> Any:
    packet = IPv6(src=ME6.ip, dst=OTHER6.ip, **fields)
    for layer in layers:
        packet /= layer
    return packet


ERRORS = [ICMP(type=kind) for kind in (3, 4, 5, 11, 12)]
ERRORS6 = [ICMPv6DestUnreach(), ICMPv6PacketTooBig(), ICMPv6TimeExceeded(), ICMPv6ParamProblem()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"type {error.type}")
@pytest.mark.parametrize("transport", [udp(), tcp(), ping()], ids=["UDP", "TCP", "ping"])
def test_an_error_about_a_session_passes_whatever_rules_say(
    datapath: Datapath, me: Port, error: Any, transport: Any
) -> None:
    datapath.send(me, frame(ME, OTHER.ip, transport))
    before = datapath.sessions()
    sent = frame(OTHER, ME.ip, error, quote(transport))
    outcome = datapath.send(datapath.ports[0], sent)
    assert outcome.verdict is Verdict.REDIRECT
    assert outcome.frame == delivered(sent, ME)
    assert datapath.sessions().tobytes() == before.tobytes()


@pytest.mark.parametrize("error", ERRORS6, ids=lambda error: f"type {error.type}")
@pytest.mark.parametrize("transport", [udp(), tcp(), ping6()], ids=["UDP", "TCP", "ping"])
def test_so_does_one_of_ipv6(datapath: Datapath, me: Port, error: Any, transport: Any) -> None:
    datapath.send(me, frame(ME6, OTHER6.ip, transport))
    for behind in ((), (IPv6ExtHdrDestOpt(),)):
        sent = frame(OTHER6, ME6.ip, error, quote6(*behind, transport))
        assert datapath.send(datapath.ports[0], sent).frame == delivered(sent, ME6)


def test_eight_bytes_of_the_transport_are_enough(datapath: Datapath, me: Port) -> None:
    datapath.send(me, frame(ME, OTHER.ip, tcp()))
    quoted = bytes(quote(tcp(), options=b"\x01" * 8))
    assert told(datapath, UNREACHABLE, quoted[:36]).verdict is Verdict.REDIRECT
    assert told(datapath, UNREACHABLE, quoted[:35]).dropped == "1:TRUNCATED"
    assert told(datapath, UNREACHABLE, quoted[:19]).dropped == "1:TRUNCATED"


UNRELATED: dict[str, tuple[Any, ...]] = {
    "no session has its ports": (UNREACHABLE, quote(udp(sport=1001))),
    "the direction is the other": (
        UNREACHABLE,
        IP(src=OTHER.ip, dst=ME.ip) / udp(2000, 1000),
    ),
    "another protocol": (UNREACHABLE, quote(tcp(sport=1000, dport=2000))),
    "another's session": (UNREACHABLE, IP(src=ME.ip, dst=THIRD.ip) / udp()),
    "a later fragment": (UNREACHABLE, quote(udp(), frag=5)),
    "an error about an error": (UNREACHABLE, quote(UNREACHABLE / IP() / udp())),
    "IP version 6 in IPv4": (UNREACHABLE, quote(udp(), version=6)),
    "IPv6: no session has its ports": (ICMPv6DestUnreach(), quote6(udp(sport=1001))),
    "IPv6: a later fragment": (
        ICMPv6DestUnreach(),
        quote6(IPv6ExtHdrFragment(offset=5), udp()),
    ),
    "IPv6: an error about an error": (
        ICMPv6DestUnreach(),
        quote6(ICMPv6DestUnreach(), IPv6(), udp()),
    ),
    "IPv6: too many extension headers": (
        ICMPv6DestUnreach(),
        quote6(*[IPv6ExtHdrDestOpt()] * 7, udp()),
    ),
}


@pytest.mark.parametrize("layers", UNRELATED.values(), ids=UNRELATED)
def test_an_error_about_nothing_is_dropped(
    datapath: Datapath, me: Port, layers: tuple[Any, ...]
) -> None:
    datapath.send(me, frame(ME, OTHER.ip, udp()))
    datapath.send(me, frame(ME, THIRD.ip, udp()))
    datapath.send(me, frame(ME6, OTHER6.ip, udp()))
    outcome = told(datapath, *layers)
    assert outcome.verdict is Verdict.DROP
    assert outcome.dropped == "1:UNRELATED_ICMP"


def test_an_error_about_a_session_that_is_over_is_dropped(datapath: Datapath, me: Port) -> None:
    datapath.send(me, frame(ME, OTHER.ip, udp()))
    datapath.age_sessions(61)
    assert told(datapath, UNREACHABLE, quote(udp())).dropped == "1:UNRELATED_ICMP"


@pytest.mark.parametrize("rules", ["own", "peer's"])
def test_an_error_ends_with_the_rule_that_admitted_its_session(
    datapath: Datapath, me: Port, rules: str
) -> None:
    datapath.send(me, frame(ME, OTHER.ip, udp()))
    if rules == "own":
        datapath.allow(me, out=[])
    else:
        datapath.allow(datapath.ports[0], into=[])
    assert told(datapath, UNREACHABLE, quote(udp())).verdict is Verdict.DROP


def from_peer(*layers: Any) -> bytes:
    sender, to = (PEER6, ME6) if layers[0].name.startswith("ICMPv6") else (PEER, ME)
    inner = frame(sender, to.ip, *layers)
    return vxlan(inner, vteps=(PEER_VTEP, OWN_VTEP), vni=VNI, dmac=ME.mac)


def test_errors_arrive_from_other_hosts(datapath: Datapath, me: Port) -> None:
    datapath.send(me, frame(ME, PEER.ip, udp()))
    datapath.send(me, frame(ME6, PEER6.ip, udp()))
    four = datapath.receive(from_peer(UNREACHABLE, IP(src=ME.ip, dst=PEER.ip) / udp()))
    six = datapath.receive(from_peer(ICMPv6DestUnreach(), IPv6(src=ME6.ip, dst=PEER6.ip) / udp()))
    assert (four.counted[me.slot]["rx_packets"], six.counted[me.slot]["rx_packets"]) == (1, 1)
    unrelated = datapath.receive(from_peer(UNREACHABLE, IP(src=ME.ip, dst=PEER.ip) / udp(1)))
    assert unrelated.dropped == f"{me.slot}:UNRELATED_ICMP"


def test_errors_leave_for_other_hosts(datapath: Datapath, me: Port) -> None:
    datapath.allow(me, into=ANYTHING)
    arriving = frame(PEER, ME.ip, udp())
    datapath.receive(vxlan(arriving, vteps=(PEER_VTEP, OWN_VTEP), vni=VNI, dmac=ME.mac))
    datapath.route(PEER.ip)
    sent = frame(ME, PEER.ip, UNREACHABLE, IP(src=PEER.ip, dst=ME.ip) / udp())
    assert datapath.send(me, sent).counted[me.slot]["direct"] == 1
