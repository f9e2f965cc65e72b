"""Sessions: one entry for both directions, with the lifetime that its protocol has."""

from typing import Any

import numpy as np
import pytest
from packets.datapath import SMALL, VNI, Datapath, Rule
from packets.frames import frame, guest, ping, tcp, udp
from packets.outcome import Verdict
from packets.tables import mapped
from scapy.layers.inet import ICMP

pytestmark = pytest.mark.kernel

LOW, HIGH = guest("10.0.0.5"), guest("10.0.0.6")
INITIATOR_1, REPLIED, CLOSING = 1, 2, 4
OVER = REPLIED | CLOSING
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
    exchange(pair, ("low", udp()), ("high", ICMP(type=13)))
    assert sorted(zip(keys(pair)["proto"], keys(pair)["port"].tolist(), strict=True)) == [
        (1, [0, 0]),
        (17, [1000, 2000]),
    ]


@pytest.mark.parametrize(
    ("steps", "lives", "flags"),
    [
        ([("low", udp())], 60, 0),
        ([("low", ping())], 60, 0),
        ([("low", tcp("S"))], 60, 0),
        ([("low", tcp("S")), ("high", tcp("SA", 80, 1000)), ("low", tcp("A"))], 3600, REPLIED),
        ([("low", tcp("S")), ("high", tcp("RA", 80, 1000)), ("low", tcp("A"))], 60, OVER),
        ([("low", tcp("S")), ("high", tcp("SA", 80, 1000)), ("low", tcp("FA"))], 60, OVER),
    ],
    ids=["UDP", "ping", "TCP opening", "TCP established", "TCP refused", "TCP closing"],
)
def test_an_idle_session_is_over_after_its_time(
    pair: Datapath, steps: list[tuple[str, Any]], lives: int, flags: int
) -> None:
    exchange(pair, *steps)
    (session,) = pair.sessions()
    assert session["flags"] == flags
    pair.write_rules(pair.ports[0], out=[])  # now only a session that lives still carries it
    pair.age_sessions(lives - 1)
    again = frame(LOW, HIGH.ip, steps[-1][1])
    assert pair.send(pair.ports[0], again).verdict is Verdict.REDIRECT
    pair.age_sessions(lives + 1)
    assert pair.send(pair.ports[0], again).dropped == "1:ACL_EGRESS"


def test_an_expired_session_is_replaced(pair: Datapath) -> None:
    exchange(pair, ("low", udp(1000, 2000)), ("high", udp(2000, 1000)))
    pair.age_sessions(61)
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


def test_a_full_table_refuses_new_sessions_and_keeps_the_old_ones(pair: Datapath) -> None:
    exchange(pair, ("low", udp()))
    outcomes = [
        pair.send(pair.ports[0], frame(LOW, HIGH.ip, udp(sport=2000 + n)))
        for n in range(2 * SMALL["sessions"])
    ]
    assert outcomes[-1].counted == {1: {"slow_path": 1, "SESSION_TABLE_FULL": 1}}
    exchange(pair, ("low", udp()), ("high", udp(2000, 1000)))


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
