"""When a gateway's reply is what is awaited: of one destination and of many alike."""

import asyncio
from ipaddress import IPv4Address

import numpy as np
import pytest

from achelous_loadgen.awaited import Group, Many, One, Targets, Wait, waits
from achelous_shared import rsp
from achelous_shared.routes import ip_bytes

VNI = 7
HERE, THERE = IPv4Address("198.18.0.2"), IPv4Address("198.18.0.3")
MAC, OTHER_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")


def targets(vtep: IPv4Address | None, *addresses: str) -> Targets:
    count = len(addresses)
    keys = b"".join(map(ip_bytes, addresses))
    return Targets(VNI, keys, MAC * count, (vtep.packed if vtep else bytes(4)) * count)


def replies(
    request: bytes, vtep: IPv4Address | None, mac: bytes = MAC, kind: rsp.ReplyType | None = None
) -> bytes:
    """Of a gateway that has routes to this VTEP, or none."""
    asked = np.frombuffer(request, rsp.REQUEST)
    entries = np.zeros(len(asked), rsp.REPLY)
    for field in rsp.REQUEST.names or ():
        entries[field] = asked[field]
    entries["type"] = kind or (rsp.ReplyType.ROUTE if vtep else rsp.ReplyType.NO_ROUTE)
    if vtep:
        entries["next_hop"] = np.frombuffer(ip_bytes(vtep), np.uint8)
        entries["mac"] = np.frombuffer(mac, np.uint8)
    return entries.tobytes()


@pytest.fixture
async def group() -> Group:
    return Group(0, 0.0, asyncio.get_running_loop().create_future())


@pytest.mark.parametrize("kind", [One, Many])
@pytest.mark.parametrize("address", ["10.0.0.9", "fd00::9"])
@pytest.mark.parametrize(
    ("wanted", "served", "mac", "met"),
    [
        (HERE, HERE, MAC, True),
        (HERE, THERE, MAC, False),
        (HERE, HERE, OTHER_MAC, False),
        (HERE, None, MAC, False),
        (None, None, MAC, True),
        (None, HERE, MAC, False),
        (None, HERE, OTHER_MAC, True),  # another vNIC has the address now
    ],
)
def test_a_reply_meets_what_is_awaited_or_not(
    group: Group,
    kind: type[One] | type[Many],
    address: str,
    wanted: IPv4Address | None,
    served: IPv4Address | None,
    mac: bytes,
    met: bool,
) -> None:
    wait = kind(targets(wanted, address), group, gateways=2)

    wait.take(1, replies(wait.request, served, mac))

    assert wait.missing(0) == 1
    assert wait.missing(1) == (not met)
    assert wait.open == (0b01 if met else 0b11)


@pytest.mark.parametrize("kind", [One, Many])
def test_a_reply_about_something_else_meets_nothing(
    group: Group, kind: type[One] | type[Many]
) -> None:
    wait = kind(targets(HERE, "10.0.0.9"), group, gateways=1)
    other = kind(targets(HERE, "10.0.0.8"), group, gateways=1)

    wait.take(0, replies(other.request, HERE))

    assert wait.missing(0) == 1


def test_one_and_many_are_asked_for_by_the_same_bytes(group: Group) -> None:
    one, many = (kind(targets(HERE, "10.0.0.9"), group, 1) for kind in (One, Many))
    assert one.request == many.request
    assert one.tails == many.tails


def test_of_many_each_may_be_met_in_another_reply(group: Group) -> None:
    wait = Many(targets(HERE, "10.0.0.8", "10.0.0.9"), group, gateways=1)
    there, missing = replies(wait.request, HERE), replies(wait.request, None)
    half = len(there) // 2

    wait.take(0, there[:half] + missing[half:])
    assert (wait.missing(0), wait.open) == (1, 1)
    wait.take(0, missing[:half] + there[half:])
    assert (wait.missing(0), wait.open) == (0, 0)


def test_a_large_group_is_asked_for_in_parts_of_one_question(group: Group) -> None:
    addresses = [f"10.0.{number // 256}.{number % 256}" for number in range(2500)]
    parts: list[Wait] = waits(targets(HERE, *addresses), group, gateways=1)

    assert [len(part.tails) for part in parts] == [1024, 1024, 452]
    assert group.left == 3
    for _ in parts:
        group.met(1.5)
    assert group.done.result() == 1.5
