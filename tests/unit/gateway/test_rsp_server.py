"""RSP replies, from bytes to bytes."""

import os
import time
from collections.abc import Callable

import numpy as np
import pytest

from achelous_gateway.changes import ChangeLogs
from achelous_gateway.rsp_server import RspServer, Stands
from achelous_gateway.stats import Stats
from achelous_shared import rsp, rsp_changes
from achelous_shared.names import VNI_MAX
from achelous_shared.route_following.table import RouteTable
from achelous_shared.routes import ROUTE, RouteOp, ip_bytes, mac_bytes
from achelous_shared.rsp import Capability, MessageType, Options, ReplyType
from achelous_shared.rsp_changes import Status
from achelous_shared.rsp_hash import destination_hashes

MAC = mac_bytes("02:00:00:00:00:09")
ALL = Capability.CHANGES | Capability.PUSH | Capability.GAPS
HELD, OTHER = ip_bytes("10.0.0.9"), ip_bytes("10.0.0.10")


@pytest.fixture
def stats() -> Stats:
    return Stats()


@pytest.fixture
def changes() -> ChangeLogs:
    """Of VPC 7 from revision 2 on: 10.0.0.9 at 4."""
    changes = ChangeLogs()
    changes.begin(7, 2)
    hashes = destination_hashes(7, np.frombuffer(HELD, np.uint8))
    changes.append(7, 4, hashes, time.monotonic_ns())
    return changes


@pytest.fixture
def serve(stats: Stats, changes: ChangeLogs) -> Callable[[bool], RspServer]:
    """A server that knows VPC 7 with 10.0.0.9 at 198.18.0.3, and VPC 8 without a route.

    VPC 7 stands at revision 6, VPC 8 at 0.
    """
    table = RouteTable(100)
    delta = np.zeros(1, ROUTE)
    delta["ip"] = np.frombuffer(HELD, np.uint8)
    delta["op"], delta["vtep"], delta["revision"] = RouteOp.UPSERT, 0xC6120003, 4
    delta["mac"] = np.frombuffer(MAC, np.uint8)
    table.apply(7, delta)
    stands: Stands = np.zeros(VNI_MAX + 2, np.int64)
    stands[[7, 8]] = 7, 1
    return lambda whole: RspServer(table, stands, changes, stats, mtu=1450, whole=lambda: whole)


def ask(*keys: tuple[int, bytes]) -> bytes:
    ips = np.frombuffer(b"".join(ip for _, ip in keys), np.uint8).reshape(len(keys), 16)
    return rsp.encode(MessageType.REQUEST, 99, rsp.requests([vni for vni, _ in keys], ips))


def test_a_route_comes_with_next_hop_mac_mtu_and_revision(
    serve: Callable[[bool], RspServer],
) -> None:
    reply = rsp.decode(serve(True).answer([ask((7, HELD))])[0], MessageType.REPLY)

    assert reply.id == 99
    [entry] = reply.entries
    assert (entry["vni"], entry["key"].tobytes()) == (7, HELD)
    assert entry["type"] == ReplyType.ROUTE
    assert (entry["length"], entry["mtu"], entry["revision"]) == (16, 1450, 4)
    assert entry["next_hop"].tobytes() == ip_bytes("198.18.0.3")
    assert entry["mac"].tobytes() == MAC


def test_no_route_and_unknown_vni_are_told_apart_in_the_order_asked(
    serve: Callable[[bool], RspServer], stats: Stats
) -> None:
    asked = [(8, HELD), (7, OTHER), (7, HELD), (9, HELD), (VNI_MAX + 5, HELD), (2**32 - 1, HELD)]

    reply = rsp.decode(serve(True).answer([ask(*asked)])[0], MessageType.REPLY)

    assert reply.entries["vni"].tolist() == [vni for vni, _ in asked]
    assert reply.entries["type"].tolist() == [
        ReplyType.NO_ROUTE,
        ReplyType.NO_ROUTE,
        ReplyType.ROUTE,
        *[ReplyType.UNKNOWN_VNI] * 3,
    ]
    missing = reply.entries[reply.entries["type"] != ReplyType.ROUTE]
    for field in ("length", "mtu", "next_hop", "mac"):
        assert not missing[field].any()
    assert missing["revision"].tolist() == [0, 6, 0, 0, 0]
    assert (stats.rsp_requests, stats.rsp_entries, stats.rsp_misses) == (1, 6, 5)


def test_as_many_destinations_as_a_message_holds(
    serve: Callable[[bool], RspServer],
) -> None:
    request = ask(*[(7, HELD)] * rsp.MAX_ENTRIES)
    reply = rsp.decode(serve(True).answer([request])[0], MessageType.REPLY)
    assert (reply.entries["type"] == ReplyType.ROUTE).all()
    assert len(reply.entries) == rsp.MAX_ENTRIES


def test_each_of_many_requests_gets_its_own_reply(
    serve: Callable[[bool], RspServer], stats: Stats
) -> None:
    requests = [ask((7, HELD)), b"garbage", ask(), ask((7, OTHER), (7, HELD))]

    replies = [
        rsp.decode(reply, MessageType.REPLY).entries["type"].tolist()
        for reply in serve(True).answer(requests)
    ]

    assert replies == [[ReplyType.ROUTE], [], [], [ReplyType.NO_ROUTE, ReplyType.ROUTE]]
    assert (stats.rsp_requests, stats.rsp_entries, stats.rsp_garbage) == (3, 3, 1)


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\0" * 16, os.urandom(300), ask((7, HELD))[:-1], ask((7, HELD)) + b"\0"],
    ids=["nothing", "zeros", "noise", "cut short", "too long"],
)
def test_garbage_is_counted_and_answered_without_entries(
    serve: Callable[[bool], RspServer], stats: Stats, garbage: bytes
) -> None:
    reply = rsp.decode(serve(True).answer([garbage])[0], MessageType.REPLY)
    assert len(reply.entries) == 0
    assert (stats.rsp_garbage, stats.rsp_requests) == (1, 0)


def test_a_table_that_was_never_whole_denies_nothing(
    serve: Callable[[bool], RspServer],
) -> None:
    reply = rsp.decode(serve(False).answer([ask((7, HELD), (7, OTHER))])[0], MessageType.REPLY)
    assert (reply.id, len(reply.entries)) == (99, 0)


def watch(*since: tuple[int, int]) -> bytes:
    vnis, revisions = zip(*since, strict=True)
    return rsp_changes.encode_watches(5, rsp_changes.watches(vnis, revisions), Options(0xFFFF, 900))


def test_what_changed_is_named_by_hash_and_what_is_forgotten_is_to_be_checked(
    serve: Callable[[bool], RspServer],
) -> None:
    [data] = serve(True).answer([watch((7, 6), (7, 4), (7, 2), (7, 1), (8, 0), (9, 3), (8, 44))])
    answer = rsp_changes.decode_changes(data)

    held = destination_hashes(7, np.frombuffer(HELD, np.uint8)).tolist()
    assert [hashes.tolist() for _, hashes, _ in answer.each()] == [[], [], held, [], [], [], []]
    assert answer.entries["status"].tolist() == [
        *[Status.CHANGES] * 3, Status.RECHECK, Status.CHANGES, Status.UNKNOWN_VNI, Status.CHANGES
    ]  # fmt: skip
    assert answer.entries["revision"].tolist() == [6, 6, 6, 6, 0, 0, 0]
    assert answer.head == (5, 7, Options(ALL, 900))


@pytest.mark.parametrize(
    ("can", "status", "since"),
    [(ALL, Status.GAP, 4), (ALL & ~Capability.GAPS, Status.RECHECK, 5)],
)
def test_an_asker_is_told_of_a_gap_or_if_it_knows_of_none_to_check_everything(
    serve: Callable[[bool], RspServer],
    changes: ChangeLogs,
    can: Capability,
    status: Status,
    since: int,
) -> None:
    changes.append(7, 6, np.zeros(0, np.uint32), time.monotonic_ns(), gap=4)
    question = rsp_changes.encode_watches(5, rsp_changes.watches([7], [5]), Options(can))
    [entry] = rsp_changes.decode_changes(serve(True).answer([question])[0]).entries
    assert (entry["status"], entry["since"], entry["revision"]) == (status, since, 6)


def test_a_table_that_was_never_whole_says_of_no_vpc_that_nothing_changed(
    serve: Callable[[bool], RspServer],
) -> None:
    [data] = serve(False).answer([watch((7, 6))])
    assert len(rsp_changes.decode_changes(data).entries) == 0


def test_a_route_has_the_lower_mtu_of_both_sides(serve: Callable[[bool], RspServer]) -> None:
    asked = rsp.decode(ask((7, HELD), (7, OTHER)), MessageType.REQUEST)
    small, large, silent = (
        rsp.encode(MessageType.REQUEST, 1, asked.entries, Options(0, mtu)) for mtu in (900, 9000, 0)
    )
    replies = [
        rsp.decode(reply, MessageType.REPLY) for reply in serve(True).answer([small, large, silent])
    ]
    assert [reply.options.mtu for reply in replies] == [900, 1450, 1450]
    assert [reply.entries["mtu"].tolist() for reply in replies] == [[900, 0], [1450, 0], [1450, 0]]


def test_a_route_says_as_of_which_revision_of_its_vpc(serve: Callable[[bool], RspServer]) -> None:
    [data] = serve(True).answer([ask((7, HELD), (8, HELD), (9, HELD))])
    assert rsp.decode(data, MessageType.REPLY).entries["as_of"].tolist() == [6, 0, 0]
