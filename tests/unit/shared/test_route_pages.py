"""Pages of a snapshot: which are refused, and what is asked for next."""

from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from achelous_shared.messages import BadMessage, SnapshotReply
from achelous_shared.route_following.pages import Page, Range
from achelous_shared.routes import ROUTE, MalformedTable, RouteOp, ip_bytes, ip_of, pack

Spans = tuple[tuple[bytes, bytes], ...]


def reply(*addresses: str, done: bool, spans: Spans = ()) -> SnapshotReply:
    entries = np.zeros(len(addresses), ROUTE)
    entries["op"] = RouteOp.UPSERT
    for at, address in enumerate(addresses):
        entries[at]["ip"] = np.frombuffer(ip_bytes(address), np.uint8)
    return SnapshotReply(vni=7, revision=1, entries=pack(entries), done=done, spans=spans)


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
    with pytest.raises(BadMessage, match="end has 3 bytes"):
        Page.of(PART, reply(done=True, spans=((b"end", b"end"),)))


def test_nothing_is_left_of_a_range_that_is_done() -> None:
    page = Page.of(Range(), reply("10.0.0.2", done=True, spans=(span("10.0.0.2", "10.0.0.2"),)))
    assert list(page.rest(3)) == []


def span(first: str, last: str) -> tuple[bytes, bytes]:
    return ip_bytes(first), ip_bytes(last)


def test_each_family_is_read_in_ranges_of_its_own() -> None:
    """By number alone all of IPv4 would be in one range: it is nothing beside IPv6."""
    spans = (span("10.0.0.1", "10.0.3.1"), span("fd00::1", "fd00::201"))
    first = Page.of(Range(), reply("10.0.0.1", done=False, spans=spans))

    bounds = [str(ip_of(part.until)) for part in list(first.rest(2))[:-1]]
    assert bounds == ["10.0.1.129", "10.0.3.1", "fd00::100"]


ADDRESSES = st.binary(min_size=16, max_size=16)


@given(
    ADDRESSES,
    st.one_of(st.just(b""), ADDRESSES),
    st.lists(st.tuples(ADDRESSES, ADDRESSES), max_size=2),
    st.integers(1, 5),
)
def test_the_rest_is_covered_once_by_ranges_one_after_the_other(
    at: bytes, until: bytes, spans: list[tuple[bytes, bytes]], count: int
) -> None:
    entries = np.zeros(1, ROUTE)
    entries[0]["ip"] = np.frombuffer(at, np.uint8)
    page = Page(Range(b"", until), 1, entries, done=False, spans=tuple(spans))
    ranges = list(page.rest(count))

    assert 1 <= len(ranges) <= 1 + 2 * count
    assert ranges[0].after == at
    assert ranges[-1].until == until
    for part, following in pairwise(ranges):
        assert part.after < part.until == following.after
