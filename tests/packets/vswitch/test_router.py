"""The host is the router of its guests: it counts hops, answers pings, and says why not."""

import pytest
from packets.datapath import OWN_VTEP, PEER_VTEP, VNI, Datapath, Port
from packets.frames import (
    ROUTER,
    Guest,
    delivered,
    frame,
    guest,
    on_the_wire,
    ping,
    ping6,
    source_port,
    tcp,
    udp,
)
from packets.outcome import Outcome, Verdict
from scapy.layers.inet import ICMP, IP, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import Ether

pytestmark = pytest.mark.kernel

ME, ME6 = guest("10.0.0.5"), Guest("fd00::5", guest("10.0.0.5").mac)
NEAR, NEAR6 = guest("10.0.0.6"), Guest("fd00::6", guest("10.0.0.6").mac)
FAR, FAR6 = guest("10.0.1.6"), Guest("fd01::6", guest("10.0.1.6").mac)
ROUTER4, ROUTER6 = "10.0.0.1", "fd00::1"
BUDGET = 20


@pytest.fixture
def me(datapath: Datapath) -> Port:
    datapath.port(NEAR.ip, ip6=NEAR6.ip)
    datapath.port(FAR.ip, subnet="10.0.1.0/24", ip6=FAR6.ip, subnet6="fd01::/64")
    return datapath.port(ME.ip, ip6=ME6.ip)


def error4(sent: bytes, kind: int, code: int, mtu: int = 0, *, quoted: int = 512) -> bytes:
    """The router's ICMP error about `sent`, byte for byte."""
    header = IP(src=ROUTER4, dst=ME.ip, id=0, flags="DF", ttl=64)
    message = ICMP(type=kind, code=code)
    whole = header / message / sent[14 : 14 + quoted]
    if mtu:
        message.nexthopmtu = mtu
        whole = header / message / sent[14 : 14 + quoted]
    return bytes(Ether(dst=ME.mac, src=ROUTER) / whole)


def error6(sent: bytes, message: object, *, quoted: int = 512) -> bytes:
    header = IPv6(src=ROUTER6, dst=ME6.ip, hlim=64)
    return bytes(Ether(dst=ME.mac, src=ROUTER) / header / message / sent[14 : 14 + quoted])


def assert_refused(outcome: Outcome, slot: int, reason: str, error: bytes) -> None:
    assert outcome.verdict is Verdict.REDIRECT
    assert outcome.frame == error
    assert outcome.dropped == f"{slot}:{reason}"


# ---- hops ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl", [64, 2, 255])
def test_a_packet_to_another_subnet_has_one_hop_less(
    datapath: Datapath, me: Port, ttl: int
) -> None:
    four = datapath.send(me, frame(ME, FAR.ip, udp(), ttl=ttl))
    six = datapath.send(me, frame(ME6, FAR6.ip, udp(), hlim=ttl))
    assert four.frame == delivered(frame(ME, FAR.ip, udp(), ttl=ttl - 1), FAR)
    assert six.frame == delivered(frame(ME6, FAR6.ip, udp(), hlim=ttl - 1), FAR6)


@pytest.mark.parametrize("identification", range(0, 65536, 1021))
def test_the_checksum_stays_right(datapath: Datapath, me: Port, identification: int) -> None:
    sent = frame(ME, FAR.ip, udp(), ttl=9, id=identification)
    seen = frame(ME, FAR.ip, udp(), ttl=8, id=identification)
    assert datapath.send(me, sent).frame == delivered(seen, FAR)


def test_a_packet_to_another_host_has_one_hop_less(datapath: Datapath, me: Port) -> None:
    for sender, to in ((ME, "10.0.2.9"), (ME6, "fd02::9")):
        datapath.route(to)
        field = "hlim" if ":" in to else "ttl"
        outcome = datapath.send(me, frame(sender, to, udp(), **{field: 64}))  # type: ignore[arg-type]
        seen = frame(sender, to, udp(), **{field: 63})  # type: ignore[arg-type]
        assert outcome.frame == on_the_wire(
            seen,
            vteps=(OWN_VTEP, PEER_VTEP),
            vni=VNI,
            dmac=guest(to).mac,
            sport=source_port(outcome.frame),
        )


@pytest.mark.parametrize("ttl", [1, 64])
def test_neighbours_in_a_subnet_have_no_router_between_them(
    datapath: Datapath, me: Port, ttl: int
) -> None:
    four, six = frame(ME, NEAR.ip, udp(), ttl=ttl), frame(ME6, NEAR6.ip, udp(), hlim=ttl)
    assert datapath.send(me, four).frame == delivered(four, NEAR)
    assert datapath.send(me, six).frame == delivered(six, NEAR6)


@pytest.mark.parametrize("ttl", [0, 1])
@pytest.mark.parametrize("size", [0, 3, 8, 1400])
def test_the_last_hop_is_told_to_the_sender(
    datapath: Datapath, me: Port, ttl: int, size: int
) -> None:
    """As traceroute wants it."""
    sent = frame(ME, FAR.ip, udp(33434, 33434, bytes(size)), ttl=ttl)
    assert_refused(datapath.send(me, sent), me.slot, "TTL_EXPIRED", error4(sent, 11, 0))
    sent = frame(ME6, FAR6.ip, udp(33434, 33434, bytes(size)), hlim=ttl)
    told = error6(sent, ICMPv6TimeExceeded(code=0))
    assert_refused(datapath.send(me, sent), me.slot, "TTL_EXPIRED", told)
    assert len(datapath.sessions()) == 0


def test_padding_is_not_quoted(datapath: Datapath, me: Port) -> None:
    sent = frame(ME, FAR.ip, udp(payload=b""), ttl=1)
    outcome = datapath.send(me, sent + b"\xff" * (60 - len(sent)))
    assert outcome.frame == error4(sent, 11, 0)


def test_options_are_quoted(datapath: Datapath, me: Port) -> None:
    sent = frame(ME, FAR.ip, udp(), ttl=1, options=b"\x01" * 40)
    assert datapath.send(me, sent).frame == error4(sent, 11, 0)


def test_nobody_is_told_about_errors_and_later_fragments(datapath: Datapath, me: Port) -> None:
    whole = IP(src=ME.ip, dst=FAR.ip, ttl=1, id=3) / udp(payload=bytes(2000))
    first, second = [frame(ME, FAR.ip)[:14] + bytes(p) for p in fragment(whole, 1200)]
    assert datapath.send(me, first).frame == error4(first, 11, 0)
    silent = datapath.send(me, second)
    assert (silent.verdict, silent.dropped) == (Verdict.DROP, f"{me.slot}:TTL_EXPIRED")
    datapath.send(datapath.ports[1], frame(FAR, ME.ip, udp()))
    quote = IP(src=FAR.ip, dst=ME.ip) / udp()
    silent = datapath.send(me, frame(ME, FAR.ip, ICMP(type=3, code=3), quote, ttl=1))
    assert (silent.verdict, silent.dropped) == (Verdict.DROP, f"{me.slot}:TTL_EXPIRED")


def test_errors_are_limited(datapath: Datapath, me: Port) -> None:
    """A vNIC gets so many in 100 ms; the drops are counted nevertheless."""
    sent = frame(ME, FAR.ip, udp(), ttl=1)
    outcomes = [datapath.send(me, sent) for _ in range(50 * BUDGET)]
    errors = sum(outcome.verdict is Verdict.REDIRECT for outcome in outcomes)
    assert BUDGET <= errors < len(outcomes)
    assert all(outcome.dropped == f"{me.slot}:TTL_EXPIRED" for outcome in outcomes)


# ---- the router itself -----------------------------------------------------------------------


def test_the_router_answers_ping(datapath: Datapath, me: Port) -> None:
    four = datapath.send(me, frame(ME, ROUTER4, ping(), ttl=1, id=5))
    six = datapath.send(me, frame(ME6, ROUTER6, ping6(), hlim=1))
    ether = Ether(dst=ME.mac, src=ROUTER)
    reply4 = IP(src=ROUTER4, dst=ME.ip, id=5, ttl=64) / ping(reply=True)
    assert four.frame == bytes(ether / reply4)
    reply6 = IPv6(src=ROUTER6, dst=ME6.ip, hlim=64) / ping6(reply=True)
    assert six.frame == bytes(ether / reply6)
    assert (four.counted, six.counted, len(datapath.sessions())) == ({}, {}, 0)


@pytest.mark.parametrize("zeros", [0, 1, 56])
def test_the_reply_to_a_ping_of_zeros_has_a_checksum_that_holds(
    datapath: Datapath, me: Port, zeros: int
) -> None:
    """A sum over zeros alone is 0 and stands as 0xffff; 0 would be wrong there (RFC 1624)."""
    asked = ICMP(type="echo-request", id=0, seq=0) / bytes(zeros)

    got = datapath.send(me, frame(ME, ROUTER4, asked))

    assert got.frame[-8 - zeros :] == b"\0\0\xff\xff" + bytes(4 + zeros)


def test_the_router_has_no_udp_service(datapath: Datapath, me: Port) -> None:
    sent = frame(ME, ROUTER4, udp())
    assert_refused(datapath.send(me, sent), me.slot, "FOR_ROUTER", error4(sent, 3, 3))
    sent = frame(ME6, ROUTER6, udp())
    told = error6(sent, ICMPv6DestUnreach(code=4))
    assert_refused(datapath.send(me, sent), me.slot, "FOR_ROUTER", told)


@pytest.mark.parametrize(
    "sent",
    [
        frame(ME, ROUTER4, tcp()),
        frame(ME, ROUTER4, ICMP(type=13)),
        frame(ME, ROUTER4, ping(), flags="MF"),
        frame(ME, ROUTER4, ping(), options=b"\x01" * 4),
        frame(ME6, ROUTER6, tcp()),
        frame(ME6, ROUTER6, IPv6ExtHdrFragment(m=1), ping6()),
    ],
    ids=["TCP", "timestamp", "a fragment", "options", "TCP on IPv6", "a fragment on IPv6"],
)
def test_what_else_is_sent_to_the_router_is_dropped(
    datapath: Datapath, me: Port, sent: bytes
) -> None:
    outcome = datapath.send(me, sent)
    assert (outcome.verdict, outcome.counted) == (Verdict.DROP, {me.slot: {"FOR_ROUTER": 1}})


# ---- path MTU --------------------------------------------------------------------------------


def test_the_smallest_mtu_of_the_path_is_told(datapath: Datapath, me: Port) -> None:
    """Of the vNIC, of the route, of the underlay less 50, in turn."""
    slot = datapath.route("10.0.0.9")
    sent = frame(ME, "10.0.0.9", udp(payload=bytes(1473)), flags="DF")
    assert_refused(datapath.send(me, sent), me.slot, "TOO_BIG", error4(sent, 3, 4, 1500))
    datapath.table("fc").mmap()[slot]["mtu"] = 1400
    assert_refused(datapath.send(me, sent), me.slot, "TOO_BIG", error4(sent, 3, 4, 1400))
    datapath.configure(underlay_mtu=1350)
    assert_refused(datapath.send(me, sent), me.slot, "TOO_BIG", error4(sent, 3, 4, 1300))
    fits = frame(ME, "10.0.0.9", udp(payload=bytes(1272)), flags="DF")
    assert datapath.send(me, fits).counted[me.slot]["direct"] == 1


def test_a_neighbours_mtu_counts_too(datapath: Datapath, me: Port) -> None:
    datapath.table("ports").mmap()[1]["mtu"] = 1300
    sent = frame(ME6, NEAR6.ip, udp(payload=bytes(1253)))
    told = error6(sent, ICMPv6PacketTooBig(mtu=1300))
    assert_refused(datapath.send(me, sent), me.slot, "TOO_BIG", told)
    fits = frame(ME6, NEAR6.ip, udp(payload=bytes(1252)))
    assert datapath.send(me, fits).frame == delivered(fits, NEAR6)


def test_a_packet_that_may_be_fragmented_is_told_about_as_well(
    datapath: Datapath, me: Port
) -> None:
    """Nobody on the path fragments: its sender must (decision 0010)."""
    sent = frame(ME, "10.0.0.9", udp(payload=bytes(1473)))
    assert_refused(datapath.send(me, sent), me.slot, "TOO_BIG", error4(sent, 3, 4, 1500))


def test_of_a_gso_frame_each_segment_must_fit(datapath: Datapath, me: Port) -> None:
    sent = frame(ME6, NEAR6.ip, tcp("A", payload=bytes(3000)))
    assert datapath.send(me, sent, gso_size=1440).frame == delivered(sent, NEAR6)
    told = error6(sent, ICMPv6PacketTooBig(mtu=1500))
    assert_refused(datapath.send(me, sent, gso_size=1441), me.slot, "TOO_BIG", told)
