"""IPv6 is forwarded as IPv4 is; what its headers can hide is looked behind or dropped."""

from dataclasses import dataclass
from typing import Any

import pytest
from packets.datapath import GATEWAY_VTEP, OWN_VTEP, PEER_VTEP, VNI, Datapath, Port, Rule
from packets.frames import (
    ROUTER,
    Guest,
    delivered,
    frame,
    guest,
    on_the_wire,
    ping6,
    source_port,
    tcp,
    udp,
    vxlan,
)
from packets.outcome import Verdict
from packets.tables import mapped
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)

pytestmark = pytest.mark.kernel

ME = Guest("fd00::5", guest("10.0.0.5").mac)
NEIGHBOUR = Guest("fd00::6", guest("10.0.0.6").mac)
PEER = guest("fd00::9")
HERE = (PEER_VTEP, OWN_VTEP)


@pytest.fixture
def me(datapath: Datapath) -> Port:
    datapath.port("10.0.0.6", ip6=NEIGHBOUR.ip)
    return datapath.port("10.0.0.5", ip6=ME.ip)


TRAFFIC: dict[str, tuple[Any, ...]] = {
    "UDP": (udp(),),
    "TCP": (tcp(payload=b"data"),),
    "ping": (ping6(),),
    "no next header": (),
    "hop-by-hop options": (IPv6ExtHdrHopByHop(), udp()),
    "destination options": (IPv6ExtHdrDestOpt(), tcp()),
    "many options": (*[IPv6ExtHdrDestOpt() for _ in range(6)], udp()),
    "a fragment that is the whole": (IPv6ExtHdrFragment(id=9), udp()),
}


@pytest.mark.parametrize("layers", TRAFFIC.values(), ids=TRAFFIC)
def test_a_neighbour_gets_it(datapath: Datapath, me: Port, layers: tuple[Any, ...]) -> None:
    sent = frame(ME, NEIGHBOUR.ip, *layers)
    outcome = datapath.send(me, sent)
    assert outcome.verdict is Verdict.REDIRECT
    assert outcome.frame == delivered(sent, NEIGHBOUR)


@pytest.mark.parametrize("layers", TRAFFIC.values(), ids=TRAFFIC)
def test_another_host_gets_it_in_ipv4(
    datapath: Datapath, me: Port, layers: tuple[Any, ...]
) -> None:
    datapath.route(PEER.ip)
    sent = frame(ME, PEER.ip, *layers, tc=0xB9)
    outcome = datapath.send(me, sent)
    assert outcome.frame == on_the_wire(
        sent,
        vteps=(OWN_VTEP, PEER_VTEP),
        vni=VNI,
        dmac=PEER.mac,
        sport=source_port(outcome.frame),
    )


def test_an_unknown_destination_is_relayed_and_learned(datapath: Datapath, me: Port) -> None:
    sent = frame(ME, PEER.ip, udp())
    outcome = datapath.send(me, sent)
    assert outcome.frame == on_the_wire(
        sent,
        vteps=(OWN_VTEP, GATEWAY_VTEP),
        vni=VNI,
        dmac=ROUTER,
        sport=source_port(outcome.frame),
    )
    assert datapath.learned() == [(VNI, PEER.ip, me.slot)]


@pytest.mark.parametrize("layers", TRAFFIC.values(), ids=TRAFFIC)
def test_what_arrives_is_delivered_bare(
    datapath: Datapath, me: Port, layers: tuple[Any, ...]
) -> None:
    sent = frame(PEER, ME.ip, *layers)
    outcome = datapath.receive(vxlan(sent, vteps=HERE, vni=VNI, dmac=ME.mac))
    assert outcome.verdict is Verdict.REDIRECT
    assert outcome.frame == delivered(sent, ME)


@pytest.mark.parametrize(("outer", "inner", "seen"), [(3, 2, 3), (3, 1, 3), (2, 2, 2)])
def test_a_congestion_mark_is_handed_on(
    datapath: Datapath, me: Port, outer: int, inner: int, seen: int
) -> None:
    arriving = vxlan(
        frame(PEER, ME.ip, udp(), tc=inner), vteps=HERE, vni=VNI, dmac=ME.mac, tos=outer
    )
    assert datapath.receive(arriving).frame == delivered(frame(PEER, ME.ip, udp(), tc=seen), ME)


def test_both_directions_share_a_session(datapath: Datapath, me: Port) -> None:
    neighbour = datapath.ports[0]
    datapath.send(me, frame(ME, NEIGHBOUR.ip, ping6()))
    answered = datapath.send(neighbour, frame(NEIGHBOUR, ME.ip, ping6(reply=True)))
    assert answered.verdict is Verdict.REDIRECT
    (key,), (session,) = datapath.table("sessions").lookup_batch_all()
    assert [ip.tobytes() for ip in key["ip"]] == [mapped(ME.ip), mapped(NEIGHBOUR.ip)]
    assert (key["proto"], key["port"].tolist()) == (58, [7, 7])
    assert session["packets"].tolist() == [1, 1]
    assert "slow_path" not in datapath.send(me, frame(ME, NEIGHBOUR.ip, ping6())).counted[me.slot]


def test_rules_see_the_ports_behind_extension_headers(datapath: Datapath, me: Port) -> None:
    datapath.allow(datapath.ports[0], into=[Rule("fd00::/64", 17, (2000, 2000))])
    hidden = IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt()
    allowed = datapath.send(me, frame(ME, NEIGHBOUR.ip, hidden, udp(dport=2000)))
    refused = datapath.send(me, frame(ME, NEIGHBOUR.ip, hidden, udp(dport=2001)))
    assert (allowed.dropped, refused.dropped) == (None, f"{me.slot}:ACL_INGRESS")


def test_a_guest_reaches_itself(datapath: Datapath, me: Port) -> None:
    sent = frame(ME, ME.ip, udp())
    assert datapath.send(me, sent).frame == delivered(sent, ME)


@dataclass(frozen=True, slots=True)
class Case:
    """A frame of ME, and why it is dropped."""

    frame: bytes
    reason: str


def changed(at: int, value: bytes) -> bytes:
    sent = frame(ME, NEIGHBOUR.ip, udp())
    return sent[:at] + value + sent[at + len(value) :]


def to_peer(*layers: Any, **ip: Any) -> bytes:
    return frame(ME, NEIGHBOUR.ip, *layers, **ip)


def sent_by(ip: str) -> bytes:
    return frame(Guest(ip, ME.mac), NEIGHBOUR.ip, udp())


REFUSED = {
    "another's address": Case(sent_by(NEIGHBOUR.ip), "SPOOFED_IP"),
    "a multicast source": Case(sent_by("ff02::1"), "SPOOFED_IP"),
    "the loopback source": Case(sent_by("::1"), "SPOOFED_IP"),
    "an IPv4 mapped source": Case(sent_by("::ffff:10.0.0.5"), "SPOOFED_IP"),
    "no source": Case(sent_by("::"), "LINK_LOCAL"),
    "a link-local source": Case(sent_by("fe80::5"), "LINK_LOCAL"),
    "a link-local destination": Case(frame(ME, "fe80::6", udp()), "LINK_LOCAL"),
    "an IPv4 mapped destination": Case(frame(ME, "::ffff:10.0.0.6", udp()), "BAD_ADDRESS"),
    "the loopback": Case(frame(ME, "::1", udp()), "BAD_ADDRESS"),
    "multicast": Case(frame(ME, "ff02::fb", udp(), dst="33:33:00:00:00:fb"), "MULTICAST"),
    "a group MAC": Case(to_peer(udp(), dst="33:33:00:00:00:01"), "MULTICAST"),
    "version 4": Case(changed(14, b"\x45"), "BAD_IP_HEADER"),
    "a length beyond the frame": Case(to_peer(udp(), plen=17), "TRUNCATED"),
    "a length within the UDP header": Case(to_peer(udp(), plen=7), "TRUNCATED"),
    "an extension header beyond the packet": Case(
        to_peer(IPv6ExtHdrDestOpt(len=3), udp()), "TRUNCATED"
    ),
    "an extension header and no more": Case(to_peer(nh=60), "TRUNCATED"),
    "more extension headers than are followed": Case(
        to_peer(*[IPv6ExtHdrDestOpt() for _ in range(7)], udp()), "EXTENSION_HEADERS"
    ),
    "hop-by-hop options that do not stand first": Case(
        to_peer(IPv6ExtHdrDestOpt(nh=0), IPv6ExtHdrHopByHop(), udp()), "EXTENSION_HEADERS"
    ),
    "a routing header of type 0": Case(
        to_peer(IPv6ExtHdrRouting(type=0, addresses=["fd00::7"]), udp()), "EXTENSION_HEADERS"
    ),
    "two fragment headers": Case(
        to_peer(IPv6ExtHdrFragment(nh=44), IPv6ExtHdrFragment(), udp()), "EXTENSION_HEADERS"
    ),
    "TCP that ends in its header": Case(to_peer(tcp(), plen=19), "TRUNCATED"),
    "an advertisement that would reach the peer": Case(
        to_peer(ICMPv6ND_NA(tgt="fd00::1"), hlim=255), "SPOOFED_IP"
    ),
    "one behind options": Case(
        to_peer(IPv6ExtHdrDestOpt(), ICMPv6ND_NA(tgt=ME.ip), hlim=255), "LINK_LOCAL"
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_frame_that_a_guest_may_not_send(datapath: Datapath, me: Port, case: Case) -> None:
    outcome = datapath.send(me, case.frame)
    assert outcome.verdict is Verdict.DROP
    assert outcome.counted == {me.slot: {case.reason: 1}}
    assert len(datapath.sessions()) == 0


def test_a_vnic_without_ipv6_sends_none(datapath: Datapath) -> None:
    other = datapath.port("10.0.0.5")
    assert datapath.send(other, frame(ME, PEER.ip, udp())).dropped == f"{other.slot}:SPOOFED_IP"
    nobody = frame(Guest("::", ME.mac), PEER.ip, udp())
    assert datapath.send(other, nobody).dropped == f"{other.slot}:LINK_LOCAL"


@pytest.mark.parametrize(
    ("source", "destination"),
    [("fe80::9", ME.ip), ("::1", ME.ip), ("fd00::9", "::ffff:10.0.0.5")],
    ids=["a link-local source", "the loopback", "a mapped destination"],
)
def test_other_hosts_do_not_bring_such_addresses_either(
    datapath: Datapath, me: Port, source: str, destination: str
) -> None:
    sent = frame(Guest(source, PEER.mac), destination, udp())
    outcome = datapath.receive(vxlan(sent, vteps=HERE, vni=VNI, dmac=ME.mac))
    assert outcome.counted == {0: {"BAD_ADDRESS": 1}}


def test_other_hosts_bring_no_neighbour_discovery(datapath: Datapath, me: Port) -> None:
    sent = frame(PEER, ME.ip, ICMPv6ND_NA(tgt="fd00::1"), hlim=255)
    outcome = datapath.receive(vxlan(sent, vteps=HERE, vni=VNI, dmac=ME.mac))
    assert outcome.counted == {me.slot: {"BAD_ND": 1}}


HIDDEN = {
    "more extension headers than are followed": [IPv6ExtHdrDestOpt()] * 7,
    "hop-by-hop options that do not stand first": [IPv6ExtHdrDestOpt(nh=0), IPv6ExtHdrHopByHop()],
    "a routing header of type 0": [IPv6ExtHdrRouting(type=0, addresses=["fd00::7"])],
    "two fragment headers": [IPv6ExtHdrFragment(nh=44), IPv6ExtHdrFragment()],
}


@pytest.mark.parametrize("headers", HIDDEN.values(), ids=HIDDEN)
def test_nor_such_extension_headers(datapath: Datapath, me: Port, headers: list[Any]) -> None:
    sent = frame(PEER, ME.ip, *headers, udp())
    outcome = datapath.receive(vxlan(sent, vteps=HERE, vni=VNI, dmac=ME.mac))
    assert outcome.counted == {me.slot: {"EXTENSION_HEADERS": 1}}


def test_nor_what_this_hosts_own_vnics_send(datapath: Datapath, me: Port) -> None:
    sent = frame(NEIGHBOUR, ME.ip, udp())
    outcome = datapath.receive(vxlan(sent, vteps=HERE, vni=VNI, dmac=ME.mac))
    assert outcome.counted == {me.slot: {"SPOOFED_IP": 1}}


@pytest.mark.parametrize("hops", [0, 1])
def test_what_arrives_needs_no_hop(datapath: Datapath, me: Port, hops: int) -> None:
    sent = frame(PEER, ME.ip, udp(), hlim=hops)
    outcome = datapath.receive(vxlan(sent, vteps=HERE, vni=VNI, dmac=ME.mac))
    assert outcome.frame == delivered(sent, ME)


@pytest.mark.parametrize("layers", [(udp(),), (tcp(),), (IPv6ExtHdrDestOpt(), ping6())])
def test_a_frame_cut_short_anywhere_is_dropped(
    datapath: Datapath, me: Port, layers: tuple[Any, ...]
) -> None:
    sent = frame(ME, NEIGHBOUR.ip, *layers)
    for length in range(54, len(sent)):
        assert datapath.send(me, sent[:length]).counted == {me.slot: {"TRUNCATED": 1}}, length


def test_no_byte_can_be_wrong_in_a_way_that_is_not_counted(datapath: Datapath, me: Port) -> None:
    datapath.configure(learn_interval_ns=0)
    for layers in ((tcp(),), (ping6(),), (IPv6ExtHdrHopByHop(), udp())):
        sent = frame(ME, NEIGHBOUR.ip, *layers)
        for at in range(len(sent)):
            outcome = datapath.send(me, sent[:at] + bytes([sent[at] ^ 0xFF]) + sent[at + 1 :])
            if outcome.verdict is Verdict.DROP:
                assert outcome.dropped is not None, at
            else:
                assert outcome.counted[me.slot].get("tx_packets") == 1, at
