"""Sessions: one entry for both directions, with the lifetime that its protocol has."""

from typing import Any

import numpy as np
import pytest
from packets.datapath import SESSION_TIMEOUTS, VNI, Datapath, Rule
from packets.frames import Guest, frame, guest, ping, tcp, udp
from packets.outcome import Verdict
from packets.tables import mapped
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import ICMPv6Unknown

pytestmark = pytest.mark.kernel

LOW, HIGH = guest("10.0.0.5"), guest("10.0.0.6")
INITIATOR_1, REPLIED = 1, 2
SYN_TO_LOW = tcp("S", 80, 1000)


def keys(datapath: Datapath) -> np.ndarray[Any, Any]:
    return datapath.table("sessions").lookup_batch_all()[0]


def exchange(datapath: Datapath, *steps: tuple[str, Any]) -> None:
    """Packets between the two guests on this host: ("low" | "high", transport)."""
    low, high = datapath.ports
    for sender, transport in steps:
        if sender == "low":
            outcome = datapath.send(low, frame(LOW, HIGH.ip, transport))
        else:
            outcome = datapath.send(high, frame(HIGH, LOW.ip, transport))
        assert outcome.verdict is Verdict.REDIRECT, (sender, transport)


@pytest.fixture
def pair(datapath: Datapath) -> Datapath:
    """LOW and HIGH on this host, allowed everything."""
    datapath.port(LOW.ip)
    datapath.port(HIGH.ip)
    return datapath


@pytest.mark.parametrize("first", ["low", "high"])
def test_both_directions_share_one_canonical_entry(pair: Datapath, first: str) -> None:
    to_high, to_low = ("low", udp(1000, 2000)), ("high", udp(2000, 1000))
    exchange(pair, *((to_high, to_low) if first == "low" else (to_low, to_high)))
    (key,), (session,) = keys(pair), pair.sessions()
    assert key["vni"] == VNI
    assert [ip.tobytes() for ip in key["ip"]] == [mapped(LOW.ip), mapped(HIGH.ip)]
    assert key["port"].tolist() == [1000, 2000]
    assert key["proto"] == 17
    assert session["flags"] == REPLIED | (0 if first == "low" else INITIATOR_1)
    assert session["packets"].tolist() == [1, 1]
    assert session["bytes"].tolist() == [50, 50]


def test_ports_decide_the_sides_where_a_guest_talks_to_itself(pair: Datapath) -> None:
    low = pair.ports[0]
    for transport in (udp(2000, 1000), udp(1000, 2000)):
        assert pair.send(low, frame(LOW, LOW.ip, transport)).verdict is Verdict.REDIRECT
    (key,), (session,) = keys(pair), pair.sessions()
    assert key["port"].tolist() == [1000, 2000]
    assert session["packets"].tolist() == [1, 1]


def test_ping_is_known_by_its_identifier(pair: Datapath) -> None:
    exchange(pair, ("low", ping(7)), ("high", ping(7, reply=True)), ("low", ping(8)))
    assert sorted(keys(pair)["port"].tolist()) == [[7, 7], [8, 8]]


def test_other_icmp_has_a_session_of_its_own(pair: Datapath) -> None:
    """Port 0 is LOW's; ports are shown in host order."""
    exchange(pair, ("low", udp()), ("high", ICMP(type=13)), ("low", ICMP(type=40, code=2)))
    assert sorted(zip(keys(pair)["proto"], keys(pair)["port"].tolist(), strict=True)) == [
        (1, [40 << 8 | 2, 0xFFFF ^ (40 << 8 | 2)]),
        (1, [0xFFFF ^ 13 << 8, 13 << 8]),
        (17, [1000, 2000]),
    ]


@pytest.mark.parametrize(("request_type", "reply"), [(13, 14), (15, 16), (17, 18), (42, 43)])
def test_a_reply_of_icmp_is_in_the_session_of_its_request(
    pair: Datapath, request_type: int, reply: int
) -> None:
    low, high = pair.ports
    pair.allow(high, into=[Rule(proto=1, ports=(request_type << 8, request_type << 8))], out=[])
    pair.allow(low, into=[])
    exchange(pair, ("low", ICMP(type=request_type)), ("high", ICMP(type=reply, code=0)))
    pair.allow(high, into=[Rule(proto=1, ports=(request_type << 8, request_type << 8))], out=[])
    exchange(pair, ("high", ICMP(type=reply, code=0)))  # its rules are asked for the request
    asked = pair.send(high, frame(HIGH, LOW.ip, ICMP(type=request_type)))
    assert asked.dropped == f"{high.slot}:ACL_EGRESS"


def test_one_type_of_icmp_opens_no_door_for_another(pair: Datapath) -> None:
    low, high = pair.ports
    pair.allow(
        high, into=[Rule(proto=1, ports=(13 << 8, 13 << 8)), Rule(proto=1, ports=(8 << 8, 8 << 8))]
    )
    exchange(pair, ("low", ICMP(type=13)), ("low", ping(13 << 8)))
    for message in (ICMP(type=17), ICMP(type=13, code=1), ICMP(type=14), ICMP(type=40)):
        outcome = pair.send(low, frame(LOW, HIGH.ip, message))
        assert outcome.dropped == f"{low.slot}:ACL_INGRESS", message


def test_the_types_of_icmpv6_are_apart_as_well(datapath: Datapath) -> None:
    low6, high6 = Guest("fd00::5", LOW.mac), Guest("fd00::6", HIGH.mac)
    low = datapath.port(LOW.ip, ip6=low6.ip)
    probe = Rule("::/0", proto=58, ports=(160 << 8, 160 << 8))
    high = datapath.port(HIGH.ip, ip6=high6.ip, allow_in=[probe], allow_out=[])
    reply = ICMPv6Unknown(type=161, msgbody=bytes(4))
    asked = datapath.send(low, frame(low6, high6.ip, ICMPv6Unknown(type=160, msgbody=bytes(4))))
    assert asked.verdict is Verdict.REDIRECT
    assert datapath.send(high, frame(high6, low6.ip, reply)).verdict is Verdict.REDIRECT
    other = frame(low6, high6.ip, ICMPv6Unknown(type=200, msgbody=bytes(4)))
    assert datapath.send(low, other).dropped == f"{low.slot}:ACL_INGRESS"


def low_tcp(flags: str) -> tuple[str, Any]:
    return "low", tcp(flags)


def high_tcp(flags: str) -> tuple[str, Any]:
    return "high", tcp(flags, 80, 1000)


OPENED = [low_tcp("S"), high_tcp("SA"), low_tcp("A")]
"""A whole handshake."""


@pytest.mark.parametrize(
    ("steps", "state"),
    [
        ([("low", udp())], "UDP_SENT"),
        ([("low", udp()), ("high", udp(2000, 1000)), ("low", udp())], "UDP_REPLIED"),
        ([("low", ping())], "ICMP"),
        ([low_tcp("S")], "SYN_SENT"),
        ([low_tcp("S"), high_tcp("SA")], "SYN_RECEIVED"),
        ([low_tcp("S"), high_tcp("SA"), low_tcp("S")], "SYN_RECEIVED"),
        (OPENED, "ESTABLISHED"),
        ([low_tcp("S"), high_tcp("S"), low_tcp("SA"), high_tcp("SA"), low_tcp("A")], "ESTABLISHED"),
        ([*OPENED, low_tcp("FA")], "CLOSING"),
        ([*OPENED, high_tcp("FA"), low_tcp("A")], "CLOSING"),
        ([*OPENED, low_tcp("FA"), high_tcp("FA"), low_tcp("A")], "CLOSED"),
        ([low_tcp("S"), high_tcp("RA"), low_tcp("A")], "CLOSED"),
        ([*OPENED, high_tcp("R"), low_tcp("A")], "CLOSED"),
        ([*OPENED, low_tcp("R")], "CLOSED"),
        ([*OPENED, low_tcp("R"), low_tcp("PA")], "ESTABLISHED"),
        ([low_tcp("A")], "SYN_SENT"),
        ([low_tcp("A"), high_tcp("A")], "ESTABLISHED"),
        ([high_tcp("PA"), low_tcp("A")], "ESTABLISHED"),
    ],
    ids=[
        "UDP", "UDP answered", "ping", "SYN", "SYN answered", "SYN repeated", "handshake",
        "both at once", "FIN", "FIN of the server", "both FINs", "refused", "reset",
        "reset by the client", "a reset that its sender takes back", "mid-stream",
        "mid-stream, answered", "mid-stream, from the server",
    ],
)  # fmt: skip
def test_an_idle_session_is_over_after_the_time_of_its_state(
    pair: Datapath, steps: list[tuple[str, Any]], state: str
) -> None:
    exchange(pair, *steps)
    lives = SESSION_TIMEOUTS[state]
    sender = pair.ports[0 if steps[-1][0] == "low" else 1]
    pair.write_rules(sender, out=[])  # now only a session that lives still carries it
    to = HIGH.ip if sender is pair.ports[0] else LOW.ip
    again = frame(sender.guest, to, steps[-1][1])
    pair.age_sessions(lives - 1)
    assert pair.send(sender, again).verdict is Verdict.REDIRECT
    pair.age_sessions(lives + 1)
    assert pair.send(sender, again).dropped == f"{sender.slot}:ACL_EGRESS"


def test_an_expired_session_is_replaced(pair: Datapath) -> None:
    exchange(pair, ("low", udp(1000, 2000)), ("high", udp(2000, 1000)))
    pair.age_sessions(91)
    exchange(pair, ("high", udp(2000, 1000)))
    (session,) = pair.sessions()
    assert session["flags"] == INITIATOR_1
    assert session["packets"].tolist() == [0, 1]


def test_a_new_connection_on_the_ports_of_a_closed_one_is_a_new_session(pair: Datapath) -> None:
    exchange(
        pair, ("low", tcp("S")), ("high", tcp("SA", 80, 1000)), ("low", tcp("R")), ("low", tcp("S"))
    )
    (session,) = pair.sessions()
    assert (session["flags"], session["packets"].tolist()) == (0, [1, 0])


@pytest.mark.parametrize("flags", ["A", "PA", "FA", "R", "SA"])
def test_where_midstream_is_refused_only_a_syn_opens_a_session(pair: Datapath, flags: str) -> None:
    pair.configure(refuse_midstream=1)
    outcome = pair.send(pair.ports[0], frame(LOW, HIGH.ip, tcp(flags)))
    assert outcome.dropped == "1:TCP_MIDSTREAM"
    assert not len(pair.sessions())
    exchange(pair, *OPENED, low_tcp("PA"), ("low", udp()))


def test_a_closed_session_lets_nobody_in_by_the_back_door(pair: Datapath) -> None:
    pair.allow(pair.ports[0], into=[])
    exchange(pair, ("low", tcp("S")), ("high", tcp("SA", 80, 1000)), ("low", tcp("R")))
    outcome = pair.send(pair.ports[1], frame(HIGH, LOW.ip, SYN_TO_LOW))
    assert outcome.dropped == "2:ACL_INGRESS"


def test_a_session_seen_in_the_future_is_not_expired(pair: Datapath) -> None:
    """Another CPU may have read the clock after this one."""
    exchange(pair, ("low", udp()))
    pair.age_sessions(-5)
    pair.write_rules(pair.ports[0], out=[])
    exchange(pair, ("low", udp()))


def test_the_same_flow_in_two_vpcs_is_two_sessions(datapath: Datapath) -> None:
    one = datapath.port(LOW.ip, vni=100)
    other = datapath.port(LOW.ip, vni=200)
    for port in (one, other):
        assert datapath.send(port, frame(LOW, HIGH.ip, udp())).verdict is Verdict.REDIRECT
    assert sorted(keys(datapath)["vni"]) == [100, 200]


def test_a_hit_takes_no_slow_path(pair: Datapath) -> None:
    sent = frame(LOW, HIGH.ip, udp())
    assert pair.send(pair.ports[0], sent).counted[1]["slow_path"] == 1
    assert "slow_path" not in pair.send(pair.ports[0], sent).counted[1]


def test_a_rule_by_port_admits_the_whole_session(pair: Datapath) -> None:
    pair.allow(pair.ports[1], into=[Rule(proto=6, ports=(80, 80))], out=[])
    exchange(
        pair,
        ("low", tcp("S")),
        ("high", tcp("SA", 80, 1000)),
        ("low", tcp("A")),
        ("high", tcp("PA", 80, 1000, b"hello")),
    )
