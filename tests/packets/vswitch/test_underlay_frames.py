"""What the underlay may bring: VXLAN of the fleet, for a vNIC of this host, and nothing else."""

from dataclasses import dataclass

import pytest
from packets.datapath import GATEWAY_VTEP, OWN_VTEP, PEER_VTEP, VNI, Datapath, Rule
from packets.frames import (
    ETHERNET,
    OUTER,
    ROUTER,
    UNDERLAY_MACS,
    Guest,
    delivered,
    frame,
    guest,
    ping,
    tcp,
    udp,
    vxlan,
)
from packets.outcome import Verdict
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether

pytestmark = pytest.mark.kernel

ME = guest("10.0.0.5")
NEIGHBOUR = guest("10.0.0.6")
PEER = guest("10.0.0.9")
HERE = (PEER_VTEP, OWN_VTEP)
INNER = frame(PEER, ME.ip, udp())
ARRIVING = vxlan(INNER, vteps=HERE, vni=VNI, dmac=ME.mac)
OUTER_IP = ETHERNET
OUTER_UDP = ETHERNET + 20
VXLAN_HEADER = ETHERNET + 28
INNER_TYPE = ETHERNET + 28 + 8 + 12


def changed(at: int, value: bytes, sent: bytes = ARRIVING) -> bytes:
    return sent[:at] + value + sent[at + len(value) :]


@pytest.mark.parametrize("sender", [PEER_VTEP, GATEWAY_VTEP], ids=["a host", "a gateway"])
@pytest.mark.parametrize("flags", [0, 1], ids=["by redirect", "by redirect_peer"])
@pytest.mark.parametrize(
    "transport", [udp(), tcp(payload=b"data"), ping()], ids=["UDP", "TCP", "ping"]
)
def test_a_packet_for_a_vnic_is_delivered_bare(
    datapath: Datapath, sender: str, flags: int, transport: bytes
) -> None:
    me = datapath.port(ME.ip, flags=flags)
    inner = frame(PEER, ME.ip, transport)
    outcome = datapath.receive(vxlan(inner, vteps=(sender, OWN_VTEP), vni=VNI, dmac=ME.mac))
    assert outcome.verdict is Verdict.REDIRECT
    assert outcome.frame == delivered(inner, ME)
    assert outcome.counted == {me.slot: {"rx_packets": 1, "rx_bytes": len(inner), "slow_path": 1}}


def test_the_second_packet_of_a_session_takes_no_slow_path(datapath: Datapath) -> None:
    me = datapath.port(ME.ip)
    assert datapath.receive(ARRIVING).counted[me.slot]["slow_path"] == 1
    assert "slow_path" not in datapath.receive(ARRIVING).counted[me.slot]


@dataclass(frozen=True, slots=True)
class Case:
    """A frame of the underlay, why it is dropped, and whether a vNIC or the host counts it."""

    frame: bytes
    reason: str
    vnic: bool = False


def to_me(inner: bytes = INNER, vni: int = VNI, dmac: str = ME.mac) -> bytes:
    return vxlan(inner, vteps=HERE, vni=vni, dmac=dmac)


REFUSED = {
    "an unknown VTEP": Case(
        vxlan(INNER, vteps=("198.18.0.99", OWN_VTEP), vni=VNI, dmac=ME.mac), "UNKNOWN_VTEP"
    ),
    "no I flag": Case(changed(VXLAN_HEADER, b"\0"), "BAD_VXLAN"),
    "all flags but I": Case(changed(VXLAN_HEADER, b"\xf7"), "BAD_VXLAN"),
    "another VPC": Case(to_me(vni=VNI + 1), "UNKNOWN_VNI"),
    "VNI 0": Case(to_me(vni=0), "UNKNOWN_VNI"),
    "an address that is not here": Case(to_me(frame(PEER, "10.0.0.77", udp())), "UNKNOWN_ENDPOINT"),
    "another's MAC": Case(to_me(dmac=NEIGHBOUR.mac), "FOREIGN_MAC", vnic=True),
    "the router's MAC": Case(to_me(dmac=ROUTER), "FOREIGN_MAC", vnic=True),
    "from an address of this host": Case(
        to_me(frame(NEIGHBOUR, ME.ip, udp())), "SPOOFED_IP", vnic=True
    ),
    "from its own address": Case(to_me(frame(ME, ME.ip, udp())), "SPOOFED_IP", vnic=True),
    "inner ARP": Case(
        to_me(bytes(Ether(src=PEER.mac, dst=ME.mac) / ARP(pdst=ME.ip))), "UNSUPPORTED_ETHERTYPE"
    ),
    "an inner 802.1Q tag": Case(changed(INNER_TYPE, b"\x81\x00\x00\x05"), "UNSUPPORTED_ETHERTYPE"),
    "an inner 802.1ad tag": Case(changed(INNER_TYPE, b"\x88\xa8\x00\x05"), "UNSUPPORTED_ETHERTYPE"),
    "an inner frame in VXLAN once more": Case(to_me(ARRIVING), "UNKNOWN_ENDPOINT"),
    "inner IP of version 6": Case(changed(ETHERNET + OUTER, b"\x65"), "BAD_IP_HEADER"),
    "inner IHL 4": Case(changed(ETHERNET + OUTER, b"\x44"), "BAD_IP_HEADER"),
    "an inner length beyond the frame": Case(
        changed(ETHERNET + OUTER + 2, (37).to_bytes(2, "big")), "TRUNCATED"
    ),
    "a UDP length beyond the datagram": Case(changed(OUTER_UDP + 4, b"\x01\x00"), "TRUNCATED"),
    "a UDP length that reaches into the padding": Case(
        changed(OUTER_UDP + 4, (len(ARRIVING) - OUTER_UDP + 1).to_bytes(2, "big")) + bytes(9),
        "TRUNCATED",
    ),
    "a UDP length of 7": Case(changed(OUTER_UDP + 4, b"\x00\x07"), "TRUNCATED"),
    "an outer length beyond the frame": Case(changed(OUTER_IP + 2, b"\x01\x00"), "TRUNCATED"),
    "an outer length below its header": Case(changed(OUTER_IP + 2, b"\x00\x13"), "TRUNCATED"),
    "a first fragment of the underlay": Case(changed(OUTER_IP + 6, b"\x20\x00"), "FRAGMENT"),
    "outer options": Case(
        vxlan(INNER, vteps=HERE, vni=VNI, dmac=ME.mac, options=b"\x01" * 4), "BAD_IP_HEADER"
    ),
    "a congestion mark that its ends do not know": Case(
        vxlan(INNER, vteps=HERE, vni=VNI, dmac=ME.mac, tos=3), "LOST_CONGESTION", vnic=True
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_frame_that_the_underlay_may_not_bring(datapath: Datapath, case: Case) -> None:
    me = datapath.port(ME.ip)
    datapath.port(NEIGHBOUR.ip)
    outcome = datapath.receive(case.frame)
    assert outcome.verdict is Verdict.DROP
    assert outcome.counted == {me.slot if case.vnic else 0: {case.reason: 1}}
    assert len(datapath.sessions()) == 0


def other_udp(**fields: int) -> bytes:
    ether = Ether(dst=UNDERLAY_MACS[0], src=UNDERLAY_MACS[1])
    return bytes(ether / IP(src=PEER_VTEP, dst=OWN_VTEP) / UDP(**fields) / bytes(40))


NOT_OURS = {
    "VXLAN for another VTEP": vxlan(INNER, vteps=(PEER_VTEP, GATEWAY_VTEP), vni=VNI, dmac=ME.mac),
    "an answer to a probe": other_udp(sport=4798, dport=40_000),
    "a probe, which is for gateways": other_udp(sport=40_000, dport=4798),
    "UDP to another port": other_udp(sport=4789, dport=4790),
    "TCP to 4789": bytes(
        Ether(dst=UNDERLAY_MACS[0]) / IP(src=PEER_VTEP, dst=OWN_VTEP) / tcp(dport=4789)
    ),
    "ARP": bytes(Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(pdst=OWN_VTEP)),
    "a later fragment": changed(OUTER_IP + 6, b"\x00\x10"),
    "IPv6": bytes(Ether(dst=UNDERLAY_MACS[0], type=0x86DD)) + bytes(60),
    "an outer 802.1Q tag": changed(12, b"\x81\x00\x00\x05") + ARRIVING[16:],
    "an outer header that is not IPv4": changed(OUTER_IP, b"\x44"),
    "a frame that ends in the UDP header": ARRIVING[: OUTER_UDP + 7],
}


@pytest.mark.parametrize("sent", NOT_OURS.values(), ids=NOT_OURS)
def test_what_is_not_ours_goes_on_to_the_kernel_as_it_is(datapath: Datapath, sent: bytes) -> None:
    datapath.port(ME.ip)
    outcome = datapath.receive(sent)
    assert outcome.verdict is Verdict.NEXT
    assert outcome.frame == sent
    assert outcome.counted == {}


def test_a_frame_cut_short_anywhere_is_dropped(datapath: Datapath) -> None:
    """Up to the UDP header nobody can tell that it would have been ours."""
    datapath.port(ME.ip)
    for length in range(OUTER_UDP, len(ARRIVING)):
        outcome = datapath.receive(ARRIVING[:length])
        if length < OUTER_UDP + 8:
            assert (outcome.verdict, outcome.counted) == (Verdict.NEXT, {}), length
        else:
            assert outcome.counted == {0: {"TRUNCATED": 1}}, length


def test_a_datagram_that_carries_too_little_anywhere_is_dropped(datapath: Datapath) -> None:
    """The lengths tell the truth, the frame has padding, and the packet in it is cut short."""
    datapath.port(ME.ip)
    for carried in range(len(ARRIVING) - OUTER_UDP - 8):
        sent = changed(OUTER_IP + 2, (28 + carried).to_bytes(2, "big"))
        sent = changed(OUTER_UDP + 4, (8 + carried).to_bytes(2, "big"), sent)
        assert datapath.receive(sent).counted == {0: {"TRUNCATED": 1}}, carried


def test_no_byte_of_a_frame_can_be_wrong_in_a_way_that_is_not_counted(datapath: Datapath) -> None:
    me = datapath.port(ME.ip)
    for at in range(len(ARRIVING)):
        outcome = datapath.receive(changed(at, bytes([ARRIVING[at] ^ 0xFF])))
        match outcome.verdict:
            case Verdict.DROP:
                assert outcome.dropped is not None, at
            case Verdict.REDIRECT:
                assert outcome.counted[me.slot]["rx_packets"] == 1, at
            case Verdict.NEXT:
                assert outcome.counted == {}, at


@pytest.mark.parametrize(
    "sent",
    [
        changed(VXLAN_HEADER, b"\xff\xff\xff\xff"),
        changed(VXLAN_HEADER + 7, b"\xff"),
        changed(OUTER_UDP + 6, b"\x12\x34"),
        ARRIVING + bytes(6),
    ],
    ids=["other flags", "reserved byte", "an outer checksum", "padding"],
)
def test_what_rfc_7348_says_to_ignore_is_ignored(datapath: Datapath, sent: bytes) -> None:
    datapath.port(ME.ip)
    outcome = datapath.receive(sent)
    assert outcome.verdict is Verdict.REDIRECT
    assert outcome.frame == delivered(INNER, ME) + sent[len(ARRIVING) :]


@pytest.mark.parametrize(
    ("outer", "inner", "seen"),
    [(0x03, 0x02, 0x03), (0x03, 0x01, 0x03), (0x02, 0x02, 0x02)],
)
def test_a_congestion_mark_of_the_underlay_reaches_a_guest_that_understands_it(
    datapath: Datapath, outer: int, inner: int, seen: int
) -> None:
    datapath.port(ME.ip)
    sent = frame(PEER, ME.ip, udp(), tos=inner)
    arriving = vxlan(sent, vteps=HERE, vni=VNI, dmac=ME.mac, tos=outer)
    assert datapath.receive(arriving).frame == delivered(frame(PEER, ME.ip, udp(), tos=seen), ME)


def test_a_released_port_is_unknown(datapath: Datapath) -> None:
    me = datapath.port(ME.ip)
    datapath.table("ports").mmap()[me.slot]["generation"] += 1
    assert datapath.receive(ARRIVING).counted == {0: {"UNKNOWN_ENDPOINT": 1}}


def test_a_reply_finds_the_way_by_the_session(datapath: Datapath) -> None:
    me = datapath.port(ME.ip)
    slot = datapath.route(PEER.ip)
    datapath.receive(ARRIVING)
    datapath.send(me, frame(ME, PEER.ip, udp(2000, 1000)))
    (session,) = datapath.sessions()
    assert [tuple(hop) for hop in session["hop"].tolist()] == [(1 << 31 | me.slot, 1), (slot, 1)]
    hit = datapath.send(me, frame(ME, PEER.ip, udp(2000, 1000)))
    assert "slow_path" not in hit.counted[me.slot]


def test_the_sender_need_not_be_where_its_mac_says(datapath: Datapath) -> None:
    """The inner source MAC is not looked at: only the VTEP is trusted to have checked it."""
    datapath.port(ME.ip)
    inner = frame(Guest(PEER.ip, "02:00:00:00:00:77"), ME.ip, udp())
    assert datapath.receive(to_me(inner)).frame == delivered(inner, ME)


HOPS = {
    "the last hop": frame(PEER, ME.ip, udp(), ttl=1),
    "no hop left": frame(PEER, ME.ip, udp(), ttl=0),
    "IP options": frame(PEER, ME.ip, udp(), options=b"\x01" * 40),
}


@pytest.mark.parametrize("inner", HOPS.values(), ids=HOPS)
def test_what_arrives_is_delivered_as_it_is(datapath: Datapath, inner: bytes) -> None:
    """The sender's host was the router: here is no hop more."""
    datapath.port(ME.ip)
    assert datapath.receive(to_me(inner)).frame == delivered(inner, ME)


def test_rules_see_the_ports_behind_ip_options(datapath: Datapath) -> None:
    datapath.port(ME.ip, allow_in=[Rule(proto=17, ports=(2000, 2000))])
    for words in range(11):
        options = b"\x01" * 4 * words
        allowed = datapath.receive(to_me(frame(PEER, ME.ip, udp(dport=2000), options=options)))
        refused = datapath.receive(to_me(frame(PEER, ME.ip, udp(dport=2001), options=options)))
        assert (allowed.dropped, refused.dropped) == (None, "1:ACL_INGRESS"), words


@pytest.mark.parametrize("flags", ["R", "RA", "A", "FA", "SA"])
def test_tcp_of_no_session_asks_the_rules_like_a_first_packet(
    datapath: Datapath, flags: str
) -> None:
    me = datapath.port(ME.ip, allow_in=[Rule(proto=6, ports=(80, 80))])
    outcomes = [
        datapath.receive(to_me(frame(PEER, ME.ip, tcp(flags, dport=dport)))) for dport in (80, 81)
    ]
    assert [outcome.dropped for outcome in outcomes] == [None, f"{me.slot}:ACL_INGRESS"]
    datapath.forget_sessions()
    datapath.configure(refuse_midstream=1)
    refused = datapath.receive(to_me(frame(PEER, ME.ip, tcp(flags, dport=80))))
    assert refused.dropped == f"{me.slot}:TCP_MIDSTREAM"
    assert not len(datapath.sessions())
