"""What the FC does not know goes to a gateway, and the agent hears of it, within limits."""

from ipaddress import IPv4Address

import pytest
from packets.datapath import GATEWAY_VTEP, OWN_VTEP, PEER_VTEP, VNI, Datapath, Port
from packets.frames import ROUTER, frame, guest, on_the_wire, source_port, udp, vtep_of
from packets.outcome import LOOPBACK, Verdict
from packets.twin import gateway_slot

pytestmark = pytest.mark.kernel

ME = guest("10.0.0.5")
NEIGHBOUR = guest("10.0.0.6")
PEER = guest("10.0.0.9")
TO_PEER = frame(ME, PEER.ip, udp())


@pytest.fixture
def me(datapath: Datapath) -> Port:
    return datapath.port(ME.ip)


def test_an_unknown_destination_is_relayed_and_told_to_the_agent(
    datapath: Datapath, me: Port
) -> None:
    outcome = datapath.send(me, TO_PEER)
    assert outcome.frame == on_the_wire(
        TO_PEER,
        vteps=(OWN_VTEP, GATEWAY_VTEP),
        vni=VNI,
        dmac=ROUTER,
        sport=source_port(outcome.frame),
    )
    assert outcome.counted == {
        me.slot: {
            "tx_packets": 1,
            "tx_bytes": len(TO_PEER),
            "relayed": 1,
            "slow_path": 1,
            "learn_events": 1,
        }
    }
    assert datapath.learned() == [(VNI, PEER.ip, me.slot)]


def test_traffic_goes_direct_as_soon_as_the_route_is_learned(datapath: Datapath, me: Port) -> None:
    datapath.send(me, TO_PEER)
    datapath.route(PEER.ip)
    assert vtep_of(datapath.send(me, TO_PEER).frame) == PEER_VTEP


def test_each_destination_has_its_gateway(datapath: Datapath, me: Port) -> None:
    """The rendezvous slot can be computed outside of the kernel."""
    table = datapath.table("gateways").mmap()
    table[:] = range(1, len(table) + 1)
    for last in range(10, 60):
        outcome = datapath.send(me, frame(ME, f"10.0.0.{last}", udp()))
        assert int(IPv4Address(vtep_of(outcome.frame))) == gateway_slot(VNI, f"10.0.0.{last}") + 1


@pytest.mark.parametrize("known", [True, False], ids=["of a known route", "of an unknown route"])
def test_without_a_gateway(datapath: Datapath, me: Port, known: bool) -> None:
    datapath.gateway(None)
    if known:
        datapath.route(PEER.ip)
    outcome = datapath.send(me, TO_PEER)
    assert outcome.dropped == (None if known else f"{me.slot}:NO_GATEWAY")
    assert len(datapath.sessions()) == known


def test_a_destination_is_told_once_in_an_interval(datapath: Datapath, me: Port) -> None:
    for _ in range(5):
        datapath.send(me, TO_PEER)
    assert len(datapath.learned()) == 1
    datapath.configure(learn_interval_ns=0)
    datapath.send(me, TO_PEER)
    assert len(datapath.learned()) == 1


def scan(datapath: Datapath, port: Port, count: int) -> None:
    """The guest tries `count` addresses."""
    for n in range(count):
        datapath.send(port, frame(port.guest, f"10.0.1.{n}", udp()))


def test_a_guest_that_scans_makes_few_events_and_leaves_the_others_theirs(
    datapath: Datapath, me: Port
) -> None:
    """`learn_per_window` is per 100 ms, vNIC and CPU; slow runs may see a few windows."""
    datapath.configure(learn_per_window=3)
    neighbour = datapath.port(NEIGHBOUR.ip)
    began = datapath.now()
    scan(datapath, me, 40)
    windows = (datapath.now() - began) // 100_000_000 + 2
    events = datapath.learned()
    assert 3 <= len(events) <= 3 * windows * datapath.table("counters").cpus
    datapath.send(neighbour, frame(NEIGHBOUR, PEER.ip, udp()))
    assert datapath.learned() == [(VNI, PEER.ip, neighbour.slot)]


def test_what_the_limit_held_back_is_told_later(datapath: Datapath, me: Port) -> None:
    datapath.configure(learn_per_window=0)
    datapath.send(me, TO_PEER)
    assert datapath.learned() == []
    datapath.configure(learn_per_window=1)
    datapath.send(me, TO_PEER)
    assert datapath.learned() == [(VNI, PEER.ip, me.slot)]


def test_a_full_ring_only_delays_learning(datapath: Datapath, me: Port) -> None:
    datapath.configure(learn_interval_ns=0, learn_per_window=1_000_000)
    datapath.send(me, TO_PEER)
    program = datapath.loaded.programs["from_guest"]
    verdicts = {program.test_run(TO_PEER, ifindex=LOOPBACK).retval for _ in range(2000)}
    assert verdicts == {Verdict.REDIRECT}
    assert 0 < len(datapath.learned()) < 2000


# ---- what is worth a route ---------------------------------------------------------------------


def test_a_destination_is_worth_a_route_after_so_many_packets(datapath: Datapath, me: Port) -> None:
    datapath.configure(learn_packets=3)
    for _ in range(2):
        datapath.send(me, TO_PEER)
    assert datapath.learned() == []
    datapath.send(me, TO_PEER)
    assert datapath.learned() == [(VNI, PEER.ip, me.slot)]


def test_or_after_so_many_bytes(datapath: Datapath, me: Port) -> None:
    datapath.configure(learn_packets=100, learn_bytes=2 * len(TO_PEER))
    datapath.send(me, TO_PEER)
    assert datapath.learned() == []
    datapath.send(me, TO_PEER)
    assert datapath.learned() == [(VNI, PEER.ip, me.slot)]


def test_and_not_before_it_has_lasted(datapath: Datapath, me: Port) -> None:
    datapath.configure(learn_after_ns=3600 * 10**9, learn_pause_ns=3600 * 10**9)
    datapath.send(me, TO_PEER)
    datapath.send(me, TO_PEER)
    assert datapath.learned() == []
    datapath.configure(learn_after_ns=1)
    datapath.send(me, TO_PEER)
    assert datapath.learned() == [(VNI, PEER.ip, me.slot)]


def test_after_a_pause_counting_starts_again(datapath: Datapath, me: Port) -> None:
    datapath.configure(learn_packets=2, learn_pause_ns=0)
    for _ in range(5):
        datapath.send(me, TO_PEER)
    assert datapath.learned() == []


def test_a_scan_of_one_packet_each_is_not_worth_a_single_route(
    datapath: Datapath, me: Port
) -> None:
    datapath.configure(learn_packets=2, learn_per_window=1_000_000)
    scan(datapath, me, 250)
    assert datapath.learned() == []
