"""Neighbour discovery is answered on the host, with the router's MAC, and reaches nobody else."""

from typing import Any

import pytest
from packets.datapath import Datapath, Port
from packets.frames import ROUTER, Guest, frame, guest, ping6, udp
from packets.outcome import Verdict
from scapy.layers.inet6 import (
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6NDOptUnknown,
    IPv6,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.layers.l2 import Ether

pytestmark = pytest.mark.kernel

ME = Guest("fd00::5", guest("10.0.0.5").mac)
LOCAL = Guest("fe80::5", ME.mac)
NOBODY = Guest("::", ME.mac)
PEER = "fd00::6"
ROUTER_IP = "fd00::1"
ROUTER_LOCAL = "fe80::cac:e1ff:fe00:1"
ALL_NODES = "ff02::1"
GROUP = "ff02::1:ff00:6"
GROUP_MAC = "33:33:ff:00:00:06"


@pytest.fixture
def me(datapath: Datapath) -> Port:
    return datapath.port("10.0.0.5", ip6=ME.ip)


def asks(
    sender: Guest, target: str, *options: Any, to: str = GROUP, hlim: int = 255, **fields: Any
) -> bytes:
    """Who has `target`?"""
    solicitation = ICMPv6ND_NS(tgt=target, **fields)
    dst = GROUP_MAC if to == GROUP else ROUTER
    return frame(sender, to, solicitation, *options, hlim=hlim, dst=dst)


def with_mac(mac: str = ME.mac) -> Any:
    return ICMPv6NDOptSrcLLAddr(lladdr=mac)


def told(target: str, to: str, *, router: int, solicited: int = 1) -> bytes:
    """`target` is at the router's MAC."""
    advertisement = ICMPv6ND_NA(tgt=target, R=router, S=solicited, O=1)
    header = IPv6(src=target, dst=to, hlim=255)
    option = ICMPv6NDOptDstLLAddr(lladdr=ROUTER)
    return bytes(Ether(dst=ME.mac, src=ROUTER) / header / advertisement / option)


@pytest.mark.parametrize("sender", [ME, LOCAL], ids=["its address", "link-local"])
@pytest.mark.parametrize(
    ("target", "router"),
    [(PEER, 0), ("fd00::abcd", 0), (ROUTER_IP, 1), (ROUTER_LOCAL, 1)],
    ids=["a peer", "an address that nobody has", "the router", "the router's link-local one"],
)
def test_a_solicitation_is_answered_with_the_routers_mac(
    datapath: Datapath, me: Port, sender: Guest, target: str, router: int
) -> None:
    outcome = datapath.send(me, asks(sender, target, with_mac()))
    assert outcome.verdict is Verdict.REDIRECT
    assert outcome.frame == told(target, sender.ip, router=router)
    assert outcome.counted == {}


@pytest.mark.parametrize(
    "sent",
    [asks(ME, PEER), asks(ME, PEER, with_mac(), to=PEER), asks(ME, PEER, with_mac(), with_mac())],
    ids=["without an option", "unicast", "two options"],
)
def test_its_form_does_not_matter(datapath: Datapath, me: Port, sent: bytes) -> None:
    assert datapath.send(me, sent).frame == told(PEER, ME.ip, router=0)


@pytest.mark.parametrize("target", [ME.ip, LOCAL.ip], ids=["assigned", "link-local"])
@pytest.mark.parametrize(
    "options",
    [(), (ICMPv6NDOptUnknown(type=14, len=1, data=b"nonce!"),)],
    ids=["plain", "with a nonce"],
)
def test_a_guest_may_have_its_own_addresses(
    datapath: Datapath, me: Port, target: str, options: tuple[Any, ...]
) -> None:
    outcome = datapath.send(me, asks(NOBODY, target, *options))
    assert (outcome.verdict, outcome.counted) == (Verdict.DROP, {})


@pytest.mark.parametrize(
    ("target", "router"), [(PEER, 0), ("fd00::77", 0), (ROUTER_IP, 1), (ROUTER_LOCAL, 1)]
)
def test_duplicate_address_detection_finds_that_any_other_is_taken(
    datapath: Datapath, me: Port, target: str, router: int
) -> None:
    outcome = datapath.send(me, asks(NOBODY, target))
    assert outcome.frame == told(target, ALL_NODES, router=router, solicited=0)


@pytest.mark.parametrize(
    "sent",
    [
        frame(ME, ALL_NODES, ICMPv6ND_NA(tgt=ME.ip), hlim=255, dst="33:33:00:00:00:01"),
        frame(LOCAL, ROUTER_LOCAL, ICMPv6ND_NA(tgt=LOCAL.ip), hlim=255),
        frame(
            LOCAL,
            "ff02::16",
            IPv6ExtHdrHopByHop(options=[RouterAlert()]),
            ICMPv6MLReport2(),
            hlim=1,
            dst="33:33:00:00:00:16",
        ),
    ],
    ids=["announcement", "defence", "multicast report"],
)
def test_what_needs_no_answer_gets_none_and_is_no_error(
    datapath: Datapath, me: Port, sent: bytes
) -> None:
    outcome = datapath.send(me, sent)
    assert (outcome.verdict, outcome.counted) == (Verdict.DROP, {})


def test_a_vnic_without_ipv6_asks_for_a_router_in_vain(datapath: Datapath) -> None:
    other = datapath.port("10.0.0.5")
    sent = frame(LOCAL, "ff02::2", ICMPv6ND_RS(), with_mac(), hlim=255, dst="33:33:00:00:00:02")
    outcome = datapath.send(other, sent)
    assert (outcome.verdict, outcome.counted) == (Verdict.DROP, {})


REFUSED: dict[str, tuple[bytes, str]] = {
    "off the link": (asks(ME, "fd01::6"), "BAD_ND"),
    "another's link-local address": (asks(ME, "fe80::6"), "BAD_ND"),
    "a multicast target": (asks(ME, "ff02::6"), "BAD_ND"),
    "a hop limit of 254": (asks(ME, PEER, hlim=254), "BAD_ND"),
    "code 1": (asks(ME, PEER, code=1), "BAD_ND"),
    "an option of length 0": (asks(ME, PEER, ICMPv6NDOptSrcLLAddr(len=0)), "BAD_ND"),
    "from nobody with a MAC": (asks(NOBODY, PEER, with_mac()), "BAD_ND"),
    "from nobody to one": (asks(NOBODY, PEER, to=PEER), "BAD_ND"),
    "from nobody to all": (asks(NOBODY, PEER, to=ALL_NODES), "BAD_ND"),
    "another's MAC": (asks(ME, PEER, with_mac("02:00:00:00:00:66")), "SPOOFED_MAC"),
    "another's source": (asks(Guest(PEER, ME.mac), ROUTER_IP), "SPOOFED_IP"),
    "another's announcement": (frame(ME, ALL_NODES, ICMPv6ND_NA(tgt=PEER), hlim=255), "SPOOFED_IP"),
    "a router advertisement": (
        frame(LOCAL, ALL_NODES, ICMPv6ND_RA(), bytes(8), hlim=255),
        "BAD_ND",
    ),
    "too short for a target": (
        frame(ME, GROUP, ICMPv6ND_NS(tgt=PEER), hlim=255, plen=20),
        "BAD_ND",
    ),
    "mDNS": (frame(LOCAL, "ff02::fb", udp(5353, 5353)), "MULTICAST"),
    "a ping to all": (frame(LOCAL, ALL_NODES, ping6()), "MULTICAST"),
    "a peer's link-local address": (frame(LOCAL, "fe80::6", ping6()), "LINK_LOCAL"),
}


@pytest.mark.parametrize(("sent", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_bad_message_is_counted(datapath: Datapath, me: Port, sent: bytes, reason: str) -> None:
    outcome = datapath.send(me, sent)
    assert outcome.verdict is Verdict.DROP
    assert outcome.counted == {me.slot: {reason: 1}}


def test_the_link_local_router_answers_ping(datapath: Datapath, me: Port) -> None:
    outcome = datapath.send(me, frame(LOCAL, ROUTER_LOCAL, ping6()))
    header = IPv6(src=ROUTER_LOCAL, dst=LOCAL.ip, hlim=64)
    assert outcome.frame == bytes(Ether(dst=ME.mac, src=ROUTER) / header / ping6(reply=True))
    assert datapath.send(me, frame(LOCAL, ROUTER_LOCAL, udp())).dropped == f"{me.slot}:LINK_LOCAL"


def test_a_message_cut_short_anywhere_is_dropped(datapath: Datapath, me: Port) -> None:
    sent = asks(ME, PEER, with_mac())
    for length in range(54, len(sent)):
        outcome = datapath.send(me, sent[:length])
        assert outcome.counted == {me.slot: {"TRUNCATED": 1}}, length
