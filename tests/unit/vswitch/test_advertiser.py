"""Unasked router advertisements: their bytes, and whose turn it is."""

from typing import Any

import numpy as np
import pytest
from scapy.layers.inet6 import ICMPv6ND_RA, IPv6
from scapy.layers.l2 import Ether

from achelous_shared.names import ROUTER_LINK_LOCAL
from achelous_vswitch.advertiser import AT_ONCE, Schedule, advertisement

INTERVAL_S = 600.0


def slots(count: int, *, with_ipv6: bool = True) -> tuple[Any, Any]:
    """Ports in use, and their leases."""
    ports = np.zeros(count, [("generation", np.uint32)])
    leases = np.zeros(count, [("ready", np.uint16), ("advert_len", np.uint16)])
    ports["generation"] = 1
    leases["ready"] = 1
    leases["advert_len"] = 56 if with_ipv6 else 0
    return ports, leases


def told(schedule: Schedule, at: tuple[Any, Any], start: int, end: int) -> list[tuple[int, int]]:
    """(second, slot) of each turn in a time that is looked at every second."""
    return [(now, slot) for now in range(start, end) for slot in schedule.due(*at, now)]


@pytest.mark.parametrize("options", [b"", b"\x01\x01\x0e\xac\xe1\x00\x00\x01"])
def test_the_frame_is_what_a_router_sends_to_all_nodes(options: bytes) -> None:
    prepared = bytes(ICMPv6ND_RA(cksum=0, routerlifetime=9000)) + options
    whole = IPv6(src=ROUTER_LINK_LOCAL, dst="ff02::1", hlim=255) / ICMPv6ND_RA(routerlifetime=9000)
    wanted = Ether(src="0e:ac:e1:00:00:01", dst="33:33:00:00:00:01") / whole / options
    assert advertisement(prepared) == bytes(wanted)


def test_each_vnic_is_told_in_an_interval_of_its_own() -> None:
    schedule, at = Schedule(3, INTERVAL_S), slots(3)
    turns = told(schedule, at, 0, 6000)
    for slot in range(3):
        times = [now for now, which in turns if which == slot]
        gaps = np.diff(times)
        assert times[0] <= INTERVAL_S
        assert (gaps >= INTERVAL_S / 3 - 1).all()
        assert (gaps <= INTERVAL_S + 1).all()
    assert len({turn[0] for turn in turns}) > 3 * 10 / 2


def test_vnics_that_come_together_are_told_apart() -> None:
    schedule, at = Schedule(3000, INTERVAL_S), slots(3000)
    each_second = np.bincount([now for now, _ in told(schedule, at, 0, 600)])
    assert each_second.max() < AT_ONCE


def test_no_more_than_some_are_told_at_once_and_all_are() -> None:
    schedule, at = Schedule(300, 1000.0), slots(300)
    schedule.due(*at, 0)
    turns = [schedule.due(*at, 1000.0) for _ in range(5)]
    assert [len(turn) for turn in turns] == [AT_ONCE] * 4 + [300 - 4 * AT_ONCE]


def test_who_has_no_ipv6_or_is_gone_is_not_told() -> None:
    assert not told(Schedule(2, INTERVAL_S), slots(2, with_ipv6=False), 0, 1300)
    gone = slots(2)
    gone[0]["generation"] = 2
    assert not told(Schedule(2, INTERVAL_S), gone, 0, 1300)
