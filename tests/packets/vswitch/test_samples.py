"""Dropped packets are sampled: which, why, for whom; limited, and what is left out is counted."""

import pytest
from packets.datapath import Datapath, Rule
from packets.frames import frame, guest, udp
from packets.outcome import Verdict

from achelous_shared.bpf import enum_of

pytestmark = pytest.mark.kernel

ME = guest("10.0.0.5")
PEER = guest("10.0.0.9")


@pytest.fixture(autouse=True)
def nothing_old(datapath: Datapath) -> None:
    datapath.samples()


def test_a_drop_is_sampled_with_its_headers(datapath: Datapath) -> None:
    me = datapath.port(ME.ip, allow_out=())
    sent = frame(ME, PEER.ip, udp())
    assert datapath.send(me, sent).dropped == "1:ACL_EGRESS"

    [sample] = datapath.samples()
    assert (sample["slot"], sample["generation"]) == (me.slot, 1)
    assert sample["reason"] == 8
    assert (sample["length"], sample["kept"], sample["underlay"]) == (len(sent), len(sent), 0)
    assert sample["frame"][: len(sent)].tobytes() == sent


def test_of_a_long_frame_the_first_bytes_are_kept(datapath: Datapath) -> None:
    me = datapath.port(ME.ip, allow_out=())
    sent = frame(ME, PEER.ip, udp(), b"x" * 1000)
    datapath.send(me, sent)

    [sample] = datapath.samples()
    assert (sample["length"], sample["kept"]) == (len(sent), 128)
    assert sample["frame"].tobytes() == sent[:128]


def test_a_forwarded_packet_is_not_sampled(datapath: Datapath) -> None:
    me = datapath.port(ME.ip)
    datapath.route(PEER.ip)
    assert datapath.send(me, frame(ME, PEER.ip, udp())).dropped is None
    assert len(datapath.samples()) == 0


def test_samples_are_limited_and_the_rest_is_counted(datapath: Datapath) -> None:
    datapath.configure(samples_per_window=0)
    me = datapath.port(ME.ip, allow_out=())
    datapath.send(me, frame(ME, PEER.ip, udp()))

    assert len(datapath.samples()) == 0
    counters = datapath.table("counters").per_cpu_lookup(me.slot)
    assert counters["samples_lost"].sum() == 1


def test_a_full_ring_loses_samples_and_says_so(datapath: Datapath) -> None:
    datapath.configure(samples_per_window=1_000_000)
    me = datapath.port(ME.ip, allow_out=())
    sent = frame(ME, PEER.ip, udp())
    for _ in range(1000):
        datapath.send(me, sent)

    lost = datapath.table("counters").per_cpu_lookup(me.slot)["samples_lost"].sum()
    assert lost > 0
    assert len(datapath.samples()) + lost == 1000


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (frame(ME, "10.0.1.9", udp(), ttl=1), "TTL_EXPIRED"),
        (frame(ME, PEER.ip, udp(payload=bytes(1480))), "TOO_BIG"),
        (frame(ME, "10.0.0.1", udp()), "FOR_ROUTER"),
    ],
    ids=["TTL", "size", "port"],
)
def test_a_drop_that_the_guest_is_told_about_is_sampled_once(
    datapath: Datapath, sent: bytes, reason: str
) -> None:
    me = datapath.port(ME.ip)
    outcome = datapath.send(me, sent)
    assert (outcome.verdict, outcome.dropped) == (Verdict.REDIRECT, f"{me.slot}:{reason}")

    [sample] = datapath.samples()
    assert enum_of(datapath.loaded, "ach_drop")[f"ACH_DROP_{reason}"] == sample["reason"]
    assert (sample["length"], sample["underlay"]) == (len(sent), 0)
    assert sample["frame"][: min(len(sent), 128)].tobytes() == sent[:128]


UDP = 17
DENIED = [  # (the sender's rules, the place of the one that denies)
    ((Rule(), Rule(proto=UDP, allow=False, priority=10)), 0),
    ((Rule(priority=5, proto=6), Rule(proto=UDP, allow=False, priority=10), Rule()), 1),
    ((Rule(proto=6),), 0xFFFF),
]


@pytest.mark.parametrize(("rules", "place"), DENIED, ids=["first", "second", "none matched"])
def test_a_sample_names_the_rule_that_denied(
    datapath: Datapath, rules: tuple[Rule, ...], place: int
) -> None:
    me = datapath.port(ME.ip, allow_out=rules)
    assert datapath.send(me, frame(ME, PEER.ip, udp())).dropped == "1:ACL_EGRESS"

    [sample] = datapath.samples()
    assert sample["rule_set"] == datapath.table("ports").mmap()[me.slot]["acl_out"]
    assert sample["rule"] == place
