"""Security groups: stateful rules by protocol, port range and remote CIDR."""

from typing import Any

import pytest
from packets.datapath import OWN_VTEP, PEER_VTEP, VNI, Datapath, Port, Rule
from packets.frames import Guest, frame, guest, ping, tcp, udp, vxlan
from packets.outcome import Outcome, Verdict

pytestmark = pytest.mark.kernel

ME = guest("10.0.0.5")
NEIGHBOUR = guest("10.0.0.6")
PEER = guest("10.0.0.9")
TCP, UDP, ICMP = 6, 17, 1
DENIED = {"out": "ACL_EGRESS", "into": "ACL_INGRESS"}


def arriving(sender: Guest, port: Port, *layers: Any) -> bytes:
    """A frame of the underlay from `sender`, who is on another host."""
    inner = frame(sender, port.guest.ip, *layers)
    return vxlan(inner, vteps=(PEER_VTEP, OWN_VTEP), vni=VNI, dmac=port.guest.mac)


CASES = [  # (what about the rule, rule, packet, whether the rule allows it)
    ("no rule", None, udp(), False),
    ("anything", Rule(), udp(), True),
    ("the protocol", Rule(proto=UDP), udp(), True),
    ("another protocol", Rule(proto=TCP), udp(), False),
    ("ICMP", Rule(proto=ICMP), ping(), True),
    ("ICMP with any identifier", Rule(proto=ICMP), ping(0xFFFF), True),
    ("not ICMP", Rule(proto=UDP), ping(), False),
    ("the port", Rule(proto=UDP, ports=(2000, 2000)), udp(), True),
    ("first of a range", Rule(proto=UDP, ports=(2000, 2005)), udp(), True),
    ("last of a range", Rule(proto=UDP, ports=(1990, 2000)), udp(), True),
    ("below a range", Rule(proto=UDP, ports=(2001, 2005)), udp(), False),
    ("above a range", Rule(proto=UDP, ports=(1990, 1999)), udp(), False),
    ("only the source port", Rule(proto=UDP, ports=(1000, 1000)), udp(), False),
    ("the very address", Rule("10.0.0.9/32"), udp(), True),
    ("another address", Rule("10.0.0.8/32"), udp(), False),
    ("its network", Rule("10.0.0.8/29"), udp(), True),
    ("the network below", Rule("10.0.0.0/29"), udp(), False),
    ("half of the Internet", Rule("0.0.0.0/1"), udp(), True),
    ("the other half", Rule("128.0.0.0/1"), udp(), False),
]
RULES = [pytest.param(*case, id=name) for name, *case in CASES]


def check(outcome: Outcome, port: Port, *, allowed: bool, reason: str) -> None:
    assert outcome.verdict is (Verdict.REDIRECT if allowed else Verdict.DROP)
    assert outcome.dropped == (None if allowed else f"{port.slot}:{reason}")


@pytest.mark.parametrize(("rule", "packet", "allowed"), RULES)
def test_a_rule_of_the_sender(
    datapath: Datapath, rule: Rule | None, packet: Any, allowed: bool
) -> None:
    me = datapath.port(ME.ip, allow_in=(), allow_out=[rule] if rule else [])
    outcome = datapath.send(me, frame(ME, PEER.ip, packet))
    check(outcome, me, allowed=allowed, reason="ACL_EGRESS")
    assert len(datapath.sessions()) == allowed


@pytest.mark.parametrize(("rule", "packet", "allowed"), RULES)
def test_a_rule_of_the_receiver(
    datapath: Datapath, rule: Rule | None, packet: Any, allowed: bool
) -> None:
    me = datapath.port(ME.ip, allow_in=[rule] if rule else [], allow_out=())
    outcome = datapath.receive(arriving(PEER, me, packet))
    check(outcome, me, allowed=allowed, reason="ACL_INGRESS")
    assert len(datapath.sessions()) == allowed


@pytest.mark.parametrize("position", [0, 1, 255, 499])
def test_the_rule_may_stand_anywhere_in_the_set(datapath: Datapath, position: int) -> None:
    rules = [Rule("192.0.2.0/24", TCP, (n, n)) for n in range(500)]
    rules[position] = Rule("10.0.0.9/32", UDP, (2000, 2000))
    me = datapath.port(ME.ip, allow_in=rules)
    assert datapath.receive(arriving(PEER, me, udp())).verdict is Verdict.REDIRECT
    assert datapath.receive(arriving(PEER, me, udp(dport=2001))).dropped == "1:ACL_INGRESS"


def test_a_rule_set_that_is_missing_allows_nothing(datapath: Datapath) -> None:
    me = datapath.port(ME.ip, acl_out=4242)
    assert datapath.send(me, frame(ME, PEER.ip, udp())).dropped == "1:ACL_EGRESS"


def test_rule_set_0_allows_nothing(datapath: Datapath) -> None:
    me = datapath.port(ME.ip, acl_in=0)
    assert datapath.receive(arriving(PEER, me, udp())).dropped == "1:ACL_INGRESS"


@pytest.mark.parametrize(
    ("asks", "answers"),
    [
        (udp(1000, 2000), udp(2000, 1000)),
        (tcp("S", 1000, 80), tcp("SA", 80, 1000)),
        (ping(7), ping(7, reply=True)),
    ],
    ids=["UDP", "TCP", "ping"],
)
def test_the_reply_needs_no_rule(datapath: Datapath, asks: Any, answers: Any) -> None:
    me = datapath.port(ME.ip, allow_in=())
    datapath.send(me, frame(ME, PEER.ip, asks))
    assert datapath.receive(arriving(PEER, me, answers)).verdict is Verdict.REDIRECT
    (session,) = datapath.sessions()
    assert session["packets"].tolist() == [1, 1]


def test_the_reply_of_a_guest_that_may_send_nothing(datapath: Datapath) -> None:
    me = datapath.port(ME.ip, allow_out=())
    datapath.receive(arriving(PEER, me, udp(1000, 2000)))
    assert datapath.send(me, frame(ME, PEER.ip, udp(2000, 1000))).verdict is Verdict.REDIRECT
    assert datapath.send(me, frame(ME, PEER.ip, udp(2000, 1001))).dropped == "1:ACL_EGRESS"


def test_on_one_host_the_rules_of_both_apply(datapath: Datapath) -> None:
    me = datapath.port(ME.ip, allow_in=(), allow_out=[Rule(proto=UDP)])
    other = datapath.port(
        NEIGHBOUR.ip, allow_in=[Rule(proto=UDP, ports=(2000, 2000))], allow_out=()
    )
    assert datapath.send(me, frame(ME, other.guest.ip, tcp())).dropped == f"{me.slot}:ACL_EGRESS"
    refused = datapath.send(me, frame(ME, other.guest.ip, udp(dport=2001)))
    assert refused.dropped == f"{me.slot}:ACL_INGRESS"
    assert len(datapath.sessions()) == 0
    assert datapath.send(me, frame(ME, other.guest.ip, udp())).verdict is Verdict.REDIRECT
    answer = datapath.send(other, frame(NEIGHBOUR, ME.ip, udp(2000, 1000)))
    assert answer.verdict is Verdict.REDIRECT
    assert len(datapath.sessions()) == 1


@pytest.mark.parametrize("changed", ["out", "into"])
@pytest.mark.parametrize("still_allowed", [True, False], ids=["still allowed", "revoked"])
def test_new_rules_reach_a_running_session(
    datapath: Datapath, changed: str, still_allowed: bool
) -> None:
    sender, receiver = datapath.port(ME.ip), datapath.port(NEIGHBOUR.ip)
    sent = frame(ME, NEIGHBOUR.ip, udp())
    datapath.send(sender, sent)
    rules = [Rule(proto=UDP, ports=(2000, 2000))] if still_allowed else []
    datapath.allow(sender if changed == "out" else receiver, **{changed: rules})
    outcome = datapath.send(sender, sent)
    check(outcome, sender, allowed=still_allowed, reason=DENIED[changed])
    assert len(datapath.sessions()) == still_allowed
    if still_allowed:
        assert outcome.counted[sender.slot]["slow_path"] == 1
        assert "slow_path" not in datapath.send(sender, sent).counted[sender.slot]


def test_new_rules_are_asked_about_the_direction_in_which_the_session_began(
    datapath: Datapath,
) -> None:
    """The replier's egress rules never mattered, and still do not."""
    me = datapath.port(ME.ip, allow_in=[Rule(proto=UDP)], allow_out=())
    datapath.receive(arriving(PEER, me, udp(1000, 2000)))
    datapath.allow(me, into=[Rule(proto=UDP, ports=(2000, 2000))])
    assert datapath.send(me, frame(ME, PEER.ip, udp(2000, 1000))).verdict is Verdict.REDIRECT
    datapath.allow(me, into=[Rule(proto=UDP, ports=(1000, 1000))], out=[Rule()])
    outcome = datapath.send(me, frame(ME, PEER.ip, udp(2000, 1000)))
    assert outcome.dropped == f"{me.slot}:ACL_INGRESS"
    assert len(datapath.sessions()) == 0


def test_a_port_that_changed_hands_is_asked_again(datapath: Datapath) -> None:
    """Another vNIC with the same address gets no free ride on an old session."""
    sender, receiver = datapath.port(ME.ip), datapath.port(NEIGHBOUR.ip)
    datapath.send(sender, frame(ME, NEIGHBOUR.ip, udp()))
    datapath.release(receiver)
    successor = datapath.port(NEIGHBOUR.ip, allow_in=[])
    outcome = datapath.send(sender, frame(ME, NEIGHBOUR.ip, udp()))
    assert outcome.dropped == f"{sender.slot}:ACL_INGRESS"
    datapath.allow(successor, into=[Rule()])
    outcome = datapath.send(sender, frame(ME, NEIGHBOUR.ip, udp()))
    assert outcome.counted[successor.slot]["rx_packets"] == 1


def test_a_slot_used_again_with_the_same_acl_generation_is_asked_again(datapath: Datapath) -> None:
    sender, receiver = datapath.port(ME.ip), datapath.port(NEIGHBOUR.ip)
    datapath.send(sender, frame(ME, NEIGHBOUR.ip, udp()))
    slot = datapath.table("ports").mmap()[receiver.slot]
    slot["acl_in"] = 0
    slot["generation"] += 2
    outcome = datapath.send(sender, frame(ME, NEIGHBOUR.ip, udp()))
    assert outcome.dropped == f"{sender.slot}:ACL_INGRESS"
