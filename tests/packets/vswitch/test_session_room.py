"""Room for sessions: a limit for each vNIC, and what goes when the table is full."""

from typing import Any

import pytest
from packets.datapath import OWN_VTEP, PEER_VTEP, SECOND, SMALL, VNI, Datapath, Port
from packets.frames import frame, guest, tcp, udp, vxlan
from packets.outcome import Outcome, Verdict

pytestmark = pytest.mark.kernel

A, B, FAR = guest("10.0.0.5"), guest("10.0.0.6"), guest("10.0.0.99")
SIZE = SMALL["sessions"]
REPLIED_AND_ESTABLISHED = 2 | 64


@pytest.fixture
def hosts(datapath: Datapath) -> Datapath:
    """A and B here, FAR elsewhere; everything is allowed, and no vNIC has a limit."""
    datapath.port(A.ip)
    datapath.port(B.ip)
    datapath.route(FAR.ip)
    return datapath


def syn(datapath: Datapath, port: Port, number: int) -> Outcome:
    return datapath.send(port, frame(port.guest, FAR.ip, tcp("S", sport=2000 + number)))


def arrive(datapath: Datapath, to: Port, transport: Any) -> Outcome:
    """From FAR."""
    sent = frame(FAR, to.guest.ip, transport)
    return datapath.receive(vxlan(sent, vteps=(PEER_VTEP, OWN_VTEP), vni=VNI, dmac=to.guest.mac))


def connect(datapath: Datapath, port: Port, sport: int) -> None:
    """A whole handshake with FAR."""
    for flags in ("S", "A"):
        sent = frame(port.guest, FAR.ip, tcp(flags, sport=sport))
        assert datapath.send(port, sent).verdict is Verdict.REDIRECT
        if flags == "S":
            back = arrive(datapath, port, tcp("SA", 80, sport))
            assert back.verdict is Verdict.REDIRECT


def open_sessions(datapath: Datapath, port: Port) -> list[int]:
    """Those that it has opened, and those that others have opened to it, by its count."""
    counts = datapath.table("session_counts").mmap()[port.slot]
    return [int(opened - closed) for opened, closed in zip(*counts.tolist(), strict=True)]


def test_each_session_is_charged_to_one_vnic_by_who_opened_it(hosts: Datapath) -> None:
    a, b = hosts.ports
    syn(hosts, a, 0)
    syn(hosts, a, 0)
    hosts.send(a, frame(A, B.ip, udp()))
    arrive(hosts, b, udp())
    assert open_sessions(hosts, a) == [2, 0]
    assert open_sessions(hosts, b) == [0, 1]


def test_a_flood_takes_its_own_vnics_sessions_and_the_neighbour_connects(hosts: Datapath) -> None:
    a, b = hosts.ports
    hosts.configure(session_limit=10)
    dropped = [syn(hosts, a, number).dropped for number in range(SIZE)]
    assert dropped[:10] == [None] * 10
    assert f"{a.slot}:SESSION_LIMIT" in dropped
    assert open_sessions(hosts, a) == [10, 0]
    connect(hosts, b, 1000)


def test_a_flood_towards_a_vnic_leaves_it_what_it_opens_itself(hosts: Datapath) -> None:
    a, _ = hosts.ports
    hosts.configure(session_limit=10)
    outcomes = [arrive(hosts, a, tcp("S", sport=2000 + number)) for number in range(SIZE)]
    assert f"{a.slot}:SESSION_LIMIT" in {outcome.dropped for outcome in outcomes}
    connect(hosts, a, 1000)


def test_a_vnics_own_limit_precedes_the_hosts(hosts: Datapath) -> None:
    a, _ = hosts.ports
    hosts.configure(session_limit=10)
    hosts.table("ports").mmap()[a.slot]["session_limit"] = 2
    outcomes = [syn(hosts, a, number).dropped for number in range(3)]
    assert outcomes == [None, None, f"{a.slot}:SESSION_LIMIT"]


def test_at_its_limit_a_vnics_own_half_open_sessions_give_way(hosts: Datapath) -> None:
    a, b = hosts.ports
    hosts.configure(session_limit=4)
    connect(hosts, a, 1000)
    syn(hosts, b, 0)
    for number in range(3):
        syn(hosts, a, number)
    hosts.age_sessions(2)  # by then a handshake is over
    assert syn(hosts, a, 3).verdict is Verdict.REDIRECT
    assert open_sessions(hosts, a) == [4, 0]
    assert open_sessions(hosts, b) == [1, 0]
    assert REPLIED_AND_ESTABLISHED in hosts.sessions()["flags"]


@pytest.mark.parametrize("flooded", ["by SYNs", "by a scan with UDP"])
def test_in_a_full_table_half_open_sessions_give_way_to_new_ones(
    hosts: Datapath, flooded: str
) -> None:
    a, b = hosts.ports
    connect(hosts, b, 1000)
    for number in range(SIZE - 1):
        if flooded == "by SYNs":
            syn(hosts, a, number)
        else:
            hosts.send(a, frame(A, f"10.0.1.{number}", udp()))
    hosts.age_sessions(2)
    for number in range(8):
        connect(hosts, b, 1001 + number)
    assert len(hosts.sessions()) == SIZE
    assert open_sessions(hosts, b) == [9, 0]
    assert (hosts.sessions()["flags"] == REPLIED_AND_ESTABLISHED).sum() == 9


def test_at_its_limit_connections_that_are_closed_give_way_at_once(hosts: Datapath) -> None:
    """A server that is asked often has more connections behind it than it may have open."""
    a, _ = hosts.ports
    hosts.configure(session_limit=5)
    for sport in range(2000, 2050):
        connect(hosts, a, sport)
        assert arrive(hosts, a, tcp("FA", 80, sport)).dropped is None
        assert hosts.send(a, frame(A, FAR.ip, tcp("FA", sport=sport))).dropped is None
    assert open_sessions(hosts, a) == [5, 0]


def ask(datapath: Datapath, port: Port, number: int) -> Outcome:
    """A query to FAR's resolver; it is answered if it passes."""
    outcome = datapath.send(port, frame(port.guest, FAR.ip, udp(2000 + number, 53)))
    if outcome.verdict is Verdict.REDIRECT:
        assert arrive(datapath, port, udp(53, 2000 + number)).verdict is Verdict.REDIRECT
    return outcome


def test_at_its_limit_a_vnics_answered_questions_give_way(hosts: Datapath) -> None:
    """A client that asks a resolver without pause is not stopped by what was answered."""
    a, b = hosts.ports
    hosts.configure(session_limit=6)
    connect(hosts, a, 1000)
    ask(hosts, b, 0)
    for number in range(5):
        ask(hosts, a, number)
    assert ask(hosts, a, 5).dropped == f"{a.slot}:SESSION_LIMIT"  # answers may still be repeated
    hosts.age_sessions(1.5, created=True)
    assert {ask(hosts, a, number).dropped for number in range(6, 11)} == {None}
    assert (open_sessions(hosts, a), open_sessions(hosts, b)) == ([6, 0], [1, 0])
    assert REPLIED_AND_ESTABLISHED in hosts.sessions()["flags"]


def test_what_may_go_is_found_behind_many_keys_of_sessions_long_gone(hosts: Datapath) -> None:
    """The hand was left behind while nobody was at a limit."""
    a, _ = hosts.ports
    for number in range(SIZE - 8):
        ask(hosts, a, number)
    hosts.forget_sessions()
    hosts.table("session_counts").mmap()[a.slot] = 0
    hosts.configure(session_limit=8)
    for number in range(8):
        ask(hosts, a, number)
    hosts.age_sessions(1.5, created=True)
    assert {ask(hosts, a, 100 + number).dropped for number in range(8)} == {None}


def test_at_its_limit_a_stream_of_udp_stays(hosts: Datapath) -> None:
    a, _ = hosts.ports
    hosts.configure(session_limit=1)
    ask(hosts, a, 0)
    keys, values = hosts.table("sessions").lookup_batch_all()
    values["created_ns"] -= 3 * SECOND  # it has talked for so long
    hosts.table("sessions").update_batch(keys, values)
    hosts.age_sessions(1.5, created=True)
    assert ask(hosts, a, 1).dropped == f"{a.slot}:SESSION_LIMIT"


def test_in_a_full_table_answered_questions_of_others_stay(hosts: Datapath) -> None:
    a, b = hosts.ports
    for number in range(SIZE):
        ask(hosts, a, number)
    hosts.age_sessions(1.5, created=True)
    assert ask(hosts, b, 0).dropped == f"{b.slot}:SESSION_TABLE_FULL"


def test_no_established_session_gives_way(hosts: Datapath) -> None:
    a, b = hosts.ports
    for number in range(SIZE):
        connect(hosts, a, 1000 + number)
    hosts.age_sessions(2)
    outcomes = [syn(hosts, b, number) for number in range(2 * SIZE)]
    assert {outcome.dropped for outcome in outcomes} == {f"{b.slot}:SESSION_TABLE_FULL"}
    assert len(hosts.sessions()) == SIZE
    connect_again = frame(A, FAR.ip, tcp("A", sport=1000))
    assert hosts.send(a, connect_again).verdict is Verdict.REDIRECT


def test_without_an_agent_ended_sessions_make_room(hosts: Datapath) -> None:
    """Nobody collects here, as if it had been killed: connections come and go all the same."""
    a, _ = hosts.ports
    for number in range(3 * SIZE):
        connect(hosts, a, 1000 + number)
        hosts.send(a, frame(A, FAR.ip, tcp("R", sport=1000 + number)))
        hosts.age_sessions(1)
    assert hosts.table("session_hands").mmap()[0]["reclaimed"] >= 2 * SIZE
    assert open_sessions(hosts, a)[0] == len(hosts.sessions())


def test_a_session_that_rules_end_is_not_counted_any_more(hosts: Datapath) -> None:
    a, _ = hosts.ports
    connect(hosts, a, 1000)
    hosts.allow(a, out=[])
    assert hosts.send(a, frame(A, FAR.ip, tcp("A"))).dropped == f"{a.slot}:ACL_EGRESS"
    assert open_sessions(hosts, a) == [0, 0]


def test_a_session_on_the_ports_of_an_ended_one_is_counted_once(hosts: Datapath) -> None:
    a, _ = hosts.ports
    for _ in range(3):
        syn(hosts, a, 0)
        hosts.age_sessions(100)
    syn(hosts, a, 0)
    assert open_sessions(hosts, a) == [1, 0]


def test_at_its_limit_a_vnic_opens_an_ended_session_again_and_is_charged_once(
    hosts: Datapath,
) -> None:
    """What is over makes room for its own successor: no other of the vNIC's goes for it."""
    a, _ = hosts.ports
    hosts.configure(session_limit=2)
    syn(hosts, a, 0)
    syn(hosts, a, 1)
    hosts.age_sessions(100)
    assert syn(hosts, a, 0).verdict is Verdict.REDIRECT
    assert open_sessions(hosts, a) == [2, 0]
    assert len(hosts.sessions()) == 2
