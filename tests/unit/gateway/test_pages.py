"""Pages of a snapshot: which are refused, and what is asked for next."""

from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from achelous_shared.messages import BadMessage, SnapshotReply
from achelous_shared.route_following.pages import Page, Range
from achelous_shared.routes import ROUTE, MalformedTable, RouteOp, ip_bytes, pack


def reply(*addresses: str, done: bool, last: bytes = b"") -> SnapshotReply:
    entries = np.zeros(len(addresses), ROUTE)
    entries["op"] = RouteOp.UPSERT
    for at, address in enumerate(addresses):
        entries[at]["ip"] = np.frombuffer(ip_bytes(address), np.uint8)
    return SnapshotReply(vni=7, revision=1, entries=pack(entries), done=done, last=last)


PART = Range(ip_bytes("10.0.0.1"), ip_bytes("10.0.9.0"))


def test_rising_addresses_within_the_range_pass() -> None:
    Page.of(PART, reply("10.0.0.2", "10.0.1.0", "10.0.9.0", done=False))
    Page.of(Range(ip_bytes("10.0.0.1")), reply("10.0.0.2", "2001:db8::1", done=False))
    Page.of(PART, reply(done=True))


@pytest.mark.parametrize(
    ("addresses", "done"),
    [
        (["10.0.0.1"], True),
        (["10.0.0.3", "10.0.0.2"], True),
        (["10.0.0.2", "10.0.0.2"], True),
        (["2001:db8::1", "10.0.0.2"], True),
        (["10.0.0.2", "10.0.9.1"], True),
        ([], False),
    ],
)
def test_what_would_not_end_or_repeats_is_refused(addresses: list[str], done: bool) -> None:
    with pytest.raises(MalformedTable):
        Page.of(PART, reply(*addresses, done=done))


def test_an_end_that_is_no_address_is_refused() -> None:
    with pytest.raises(BadMessage, match="last has 3 bytes"):
        Page.of(PART, reply(done=True, last=b"end"))


def test_nothing_is_left_of_a_range_that_is_done() -> None:
    page = Page.of(Range(), reply("10.0.0.2", done=True, last=ip_bytes("10.0.0.2")))
    assert list(page.rest(3)) == []


ADDRESSES = st.binary(min_size=16, max_size=16)


@given(ADDRESSES, st.one_of(st.just(b""), ADDRESSES), ADDRESSES, st.integers(1, 5))
def test_the_rest_is_covered_once_by_ranges_one_after_the_other(
    at: bytes, until: bytes, last: bytes, count: int
) -> None:
    entries = np.zeros(1, ROUTE)
    entries[0]["ip"] = np.frombuffer(at, np.uint8)
    ranges = list(Page(Range(b"", until), 1, entries, done=False, last=last).rest(count))

    assert 1 <= len(ranges) <= count
    assert ranges[0].after == at
    assert ranges[-1].until == until
    for part, following in pairwise(ranges):
        assert part.after < part.until == following.after
