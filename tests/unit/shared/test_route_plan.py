"""What the gateway decides on deltas, snapshots and listings."""

from itertools import product

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from achelous_shared.route_following.plan import (
    MAX_BUFFERED,
    TRANSITIONS,
    Action,
    Delta,
    State,
    Verdict,
    Vpc,
    compare,
    joined,
    judge,
    replay,
)
from achelous_shared.routes import MAX_DELTA_ENTRIES, REVISION, ROUTE, Routes


def delta(base: int, revision: int, entries: int = 0) -> Delta:
    return Delta(7, base, revision, np.zeros(entries, ROUTE))


def listed(**revisions: int) -> Routes:
    """listed(v5=3): VNI 5 at revision 3."""
    pairs = [(int(name[1:]), revision) for name, revision in revisions.items()]
    return np.array(pairs, REVISION)


@pytest.mark.parametrize(
    ("base", "revision", "verdict"),
    [
        (5, 6, Verdict.NEXT),
        (3, 6, Verdict.NEXT),  # of several revisions, some of which are held
        (4, 5, Verdict.DUPLICATE),
        (0, 1, Verdict.DUPLICATE),
        (6, 7, Verdict.GAP),
        (5, 5, Verdict.DUPLICATE),  # announced, and held
        (6, 6, Verdict.GAP),  # announced, and the delta was lost
    ],
)
def test_a_delta_is_judged_by_the_revision_held(base: int, revision: int, verdict: Verdict) -> None:
    assert judge(5, delta(base, revision)) is verdict


def test_every_state_knows_what_to_do_with_every_delta() -> None:
    assert set(TRANSITIONS) == set(product(State, Verdict))
    applies = [key for key, action in TRANSITIONS.items() if action is Action.APPLY]
    assert applies == [(State.FOLLOWING, Verdict.NEXT)]


def spans(deltas: list[Delta]) -> list[tuple[int, int, int, int]]:
    return [(one.vni, one.base, one.revision, one.messages) for one in deltas]


def test_deltas_that_follow_each_other_become_one() -> None:
    other = Delta(8, 1, 2, np.zeros(1, ROUTE))
    found = joined([delta(5, 6, 2), other, delta(6, 8, 3), delta(8, 8), delta(8, 9, 1)])
    assert spans(found) == [(7, 5, 9, 4), (8, 1, 2, 1)]
    assert len(found[0].entries) == 6
    assert found[0].entries.dtype == ROUTE


@pytest.mark.parametrize(
    "second", [delta(5, 6), delta(4, 7), delta(7, 8)], ids=["again", "overlapping", "a gap"]
)
def test_deltas_that_do_not_follow_each_other_stay_apart(second: Delta) -> None:
    assert spans(joined([delta(5, 6), second])) == spans([delta(5, 6), second])


def test_no_more_entries_are_joined_than_one_delta_may_have() -> None:
    found = joined([delta(5, 6, MAX_DELTA_ENTRIES), delta(6, 7, 1), delta(7, 8, 1)])
    assert spans(found) == [(7, 5, 6, 1), (7, 6, 8, 2)]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=12))
def test_joined_deltas_are_judged_as_the_last_of_them_would_be(
    steps: list[tuple[int, int]],
) -> None:
    """Whatever base they have; each after the one before, but for some that are missing."""
    deltas, at = [], 0
    for missing, length in steps:
        deltas.append(delta(at + (missing == 4), at + (missing == 4) + length))
        at = deltas[-1].revision

    def ends_at(some: list[Delta]) -> int:
        revision = 0
        for one in some:
            if judge(revision, one) is Verdict.NEXT:
                revision = one.revision
        return revision

    assert ends_at(joined(deltas)) == ends_at(deltas)


def test_what_came_during_a_snapshot_is_applied_on_top_in_order() -> None:
    due, gap = replay(10, [delta(11, 12), delta(9, 10), delta(10, 11), delta(12, 12)])
    assert [found.revision for found in due] == [11, 12]
    assert not gap


def test_a_gap_behind_a_snapshot_is_seen() -> None:
    due, gap = replay(10, [delta(10, 11), delta(12, 13)])
    assert ([found.revision for found in due], gap) == ([11], True)


@given(st.integers(0, 20), st.permutations([delta(n, n + 1) for n in range(15)]))
def test_any_order_and_any_snapshot_lead_to_the_last_revision(
    revision: int, deltas: list[Delta]
) -> None:
    due, gap = replay(revision, deltas)
    assert not gap
    assert [found.revision for found in due] == list(range(revision + 1, 16))


def test_the_buffer_is_bounded_and_its_overflow_is_a_gap() -> None:
    vpc = Vpc(7, State.SYNCING)
    for revision in range(3):
        vpc.buffer(delta(revision, revision + 1, MAX_BUFFERED // 2))
    assert [kept.revision for kept in vpc.buffered] == [3]
    assert replay(0, vpc.buffered) == ([], True)


class TestCompare:
    def test_equal_revisions_ask_for_nothing(self) -> None:
        found = compare({5: 3, 6: 0}, frozenset(), listed(v5=3, v6=0))
        assert (found.ask, found.behind, found.empty, found.gone) == ([], {}, [], [])

    def test_a_vpc_that_is_not_held_is_read(self) -> None:
        assert compare({}, frozenset(), listed(v5=3)).ask == [5]

    def test_a_vpc_without_routes_is_known_without_reading(self) -> None:
        found = compare({}, frozenset(), listed(v5=0))
        assert (found.ask, found.empty) == ([], [5])

    def test_a_vpc_that_is_behind_may_have_deltas_on_their_way(self) -> None:
        found = compare({5: 2}, frozenset(), listed(v5=3))
        assert (found.ask, found.behind) == ([], {5: 3})

    def test_a_vni_that_began_anew_is_read(self) -> None:
        assert compare({5: 9}, frozenset(), listed(v5=3)).ask == [5]

    def test_a_vpc_that_is_being_read_is_left_alone(self) -> None:
        found = compare({}, frozenset({5, 6}), listed(v5=3))
        assert (found.ask, found.gone) == ([], [])

    def test_a_vpc_that_the_controller_does_not_know_is_gone(self) -> None:
        assert compare({5: 3}, frozenset(), listed(v6=0)).gone == [5]
