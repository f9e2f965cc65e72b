"""Which deltas of a VPC go together in one message."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from achelous_controller.programming.outbox import RoutesRow
from achelous_controller.programming.route_publisher import joined
from achelous_shared.routes import MAX_DELTA_ENTRIES, ROUTE

LIMIT = MAX_DELTA_ENTRIES * ROUTE.itemsize


def row(number: int, base: int, revision: int, entries: int) -> RoutesRow:
    return RoutesRow(number, 7, base, revision, bytes(entries * ROUTE.itemsize), None, False)


@st.composite
def deltas(draw: st.DrawFn) -> list[RoutesRow]:
    """In order; some do not join on, as after a restore of the database."""
    rows: list[RoutesRow] = []
    revision = 0
    for number in range(draw(st.integers(0, 12))):
        base = revision + draw(st.sampled_from([0, 0, 0, 5]))
        revision = base + draw(st.integers(1, 3))
        rows.append(row(number, base, revision, draw(st.sampled_from([1, 3000, 8192]))))
    return rows


@given(deltas())
def test_messages_have_all_deltas_in_order_and_as_many_as_fit(rows: list[RoutesRow]) -> None:
    messages = list(joined(rows))
    assert [one for some in messages for one in some] == rows
    for some in messages:
        assert all(later.base == earlier.revision for earlier, later in pairwise(some))
        assert len(some) == 1 or sum(len(one.entries) for one in some) <= LIMIT
    for some, following in pairwise(messages):
        fits = sum(len(one.entries) for one in [*some, following[0]]) <= LIMIT
        assert some[-1].revision != following[0].base or not fits
