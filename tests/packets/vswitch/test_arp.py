"""Every ARP request is answered on the host, with the router's MAC, or refused."""

from typing import Any

import pytest
from packets.datapath import Datapath
from packets.frames import BROADCAST, NO_ADDRESS, ROUTER, arp_reply, arp_request, guest
from packets.outcome import Verdict
from scapy.layers.l2 import ARP, Ether

pytestmark = pytest.mark.kernel

ME = guest("10.0.0.5")


@pytest.mark.parametrize(
    "target",
    ["10.0.0.1", "10.0.0.6", "10.0.0.200", "169.254.1.1"],
    ids=["the router", "a peer", "an address that nobody has", "the link-local router"],
)
def test_a_request_is_answered_with_the_routers_mac(datapath: Datapath, target: str) -> None:
    outcome = datapath.send(datapath.port(ME.ip), arp_request(ME, target))
    assert outcome.verdict is Verdict.REDIRECT
    assert outcome.frame == arp_reply(ME, target)
    assert outcome.counted == {}


def test_a_unicast_request_is_answered_too(datapath: Datapath) -> None:
    """Linux asks the neighbour that it knows before it forgets it."""
    asked = bytes.fromhex(ROUTER.replace(":", "")) + arp_request(ME, "10.0.0.6")[6:]
    outcome = datapath.send(datapath.port(ME.ip), asked)
    assert outcome.frame == arp_reply(ME, "10.0.0.6")


def test_a_router_outside_of_the_subnet_is_answered(datapath: Datapath) -> None:
    me = datapath.port("10.0.0.5", subnet="10.0.0.5/32")
    assert datapath.send(me, arp_request(ME, "169.254.1.1")).verdict is Verdict.REDIRECT
    assert datapath.send(me, arp_request(ME, "10.0.0.4")).dropped == f"{me.slot}:BAD_ARP"


def test_a_probe_for_another_address_is_answered_to_nobody_in_particular(
    datapath: Datapath,
) -> None:
    outcome = datapath.send(datapath.port(ME.ip), arp_request(ME, "10.0.0.6", psrc=NO_ADDRESS))
    assert outcome.frame == arp_reply(ME, "10.0.0.6", psrc=NO_ADDRESS)


@pytest.mark.parametrize(
    "sent",
    [
        arp_request(ME, ME.ip),
        arp_request(ME, ME.ip, psrc=NO_ADDRESS),
        arp_request(ME, ME.ip, op=2, hwdst=ME.mac),
        arp_request(ME, "10.0.0.1", op=2, hwdst=ROUTER),
    ],
    ids=["gratuitous request", "probe for its own address", "gratuitous reply", "reply"],
)
def test_what_needs_no_answer_gets_none_and_is_no_error(datapath: Datapath, sent: bytes) -> None:
    outcome = datapath.send(datapath.port(ME.ip), sent)
    assert (outcome.verdict, outcome.counted) == (Verdict.DROP, {})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another's sender MAC": ({"hwsrc": "02:00:00:00:00:66"}, "SPOOFED_MAC"),
    "another's sender address": ({"psrc": "10.0.0.6"}, "SPOOFED_IP"),
    "a target off the subnet": ({"pdst": "10.0.1.6"}, "BAD_ARP"),
    "not Ethernet": ({"hwtype": 6}, "BAD_ARP"),
    "not IPv4": ({"ptype": 0x86DD}, "BAD_ARP"),
    "a hardware length of 8": ({"hwlen": 8}, "BAD_ARP"),
    "a protocol length of 16": ({"plen": 16}, "BAD_ARP"),
    "reverse ARP": ({"op": 3}, "BAD_ARP"),
    "operation 0": ({"op": 0}, "BAD_ARP"),
}


@pytest.mark.parametrize(("fields", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_bad_message_is_counted(datapath: Datapath, fields: dict[str, Any], reason: str) -> None:
    me = datapath.port(ME.ip)
    sent = bytearray(arp_request(ME, "10.0.0.1"))
    if "hwlen" in fields:  # scapy would size the addresses by these two
        sent[18] = fields["hwlen"]
    elif "plen" in fields:
        sent[19] = fields["plen"]
    else:
        sent[:] = arp_request(ME, "10.0.0.1", **fields)
    outcome = datapath.send(me, bytes(sent))
    assert outcome.verdict is Verdict.DROP
    assert outcome.counted == {me.slot: {reason: 1}}


def test_an_ethernet_source_that_is_not_the_guests_is_spoofed(datapath: Datapath) -> None:
    me = datapath.port(ME.ip)
    message = ARP(op=1, hwsrc=ME.mac, psrc=ME.ip, pdst="10.0.0.1")
    outcome = datapath.send(me, bytes(Ether(dst=BROADCAST, src="02:00:00:00:00:66") / message))
    assert outcome.counted == {me.slot: {"SPOOFED_MAC": 1}}


def test_a_message_cut_short_anywhere_is_dropped(datapath: Datapath) -> None:
    me = datapath.port(ME.ip)
    sent = arp_request(ME, "10.0.0.1")
    for length in range(14, len(sent)):
        outcome = datapath.send(me, sent[:length])
        assert outcome.counted == {me.slot: {"TRUNCATED": 1}}, length
