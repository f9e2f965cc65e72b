"""The set of pending cohorts: found by change, host and VPC, whatever was put and discarded."""

from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.domain.pending import (
    Member,
    RoutesAt,
    cohorts,
    pack_cohorts,
    unpack_cohorts,
)
from achelous_controller.programming.pending import Change, Pending, PendingSet

HOSTS = [UUID(int=100 + n) for n in range(3)]
VNIS = range(1, 5)

members = st.builds(
    Member,
    id=st.uuids(),
    host_id=st.sampled_from(HOSTS),
    accepted_at=st.floats(0, 1e9),
    vnics=st.just(()),
    routes=st.lists(
        st.builds(RoutesAt, st.sampled_from(VNIS), st.integers(1, 9)), min_size=1, max_size=3
    ),
).flatmap(
    lambda member: st.lists(
        st.uuids(), min_size=len(member.routes), max_size=len(member.routes)
    ).map(lambda vnics: member._replace(vnics=vnics))
)


@st.composite
def transactions(draw: st.DrawFn) -> list[Pending]:
    """What one transaction leaves."""
    revisions = {host: draw(st.integers(1, 3)) for host in HOSTS}
    some = draw(st.lists(members, min_size=1, max_size=5, unique_by=lambda member: member.id))
    return [Pending(each) for each in cohorts(some, InstanceState.BUILDING, revisions, 1.0)]


changes = st.lists(st.tuples(st.booleans(), transactions()), max_size=8)
"""Cohorts to put, and whether the first of them is discarded then."""


def after(done: list[tuple[bool, list[Pending]]]) -> tuple[PendingSet, list[Pending]]:
    """The set after these changes, and what should be in it."""
    kept, model = PendingSet(), list[Pending]()
    for discards, put in done:
        for pending in put:
            kept.put(pending)
        model += put
        if discards:
            kept.discard(put[0])
            model.remove(put[0])
    return kept, model


def sizes(model: list[Pending]) -> dict[Change, int]:
    found: Counter[Change] = Counter()
    for pending in model:
        found[pending.change] += len(pending)
    return dict(found)


@given(st.lists(members, min_size=1, max_size=9, unique_by=lambda member: member.id))
def test_a_cohort_waits_for_the_latest_routes_of_all_that_are_in_its_vpcs(
    some: list[Member],
) -> None:
    revisions = {host: n for n, host in enumerate(HOSTS)}
    made = cohorts(some, InstanceState.BUILDING, revisions, 1.0)

    assert unpack_cohorts(pack_cohorts(made)) != []
    found = {
        instance: (pending, place)
        for pending in map(Pending, made)
        for place, instance in enumerate(pending.instances())
    }
    assert found.keys() == {member.id for member in some}
    for member in some:
        pending, place = found[member.id]
        count = len(member.vnics)
        assert pending.change == (member.host_id, revisions[member.host_id])
        assert pending.vnics()[place * count : (place + 1) * count] == member.vnics
        assert pending.accepted()[place] == member.accepted_at
        wanted = dict(pending.cohort.routes)
        assert wanted.keys() == {vni for vni, _ in member.routes}
        assert all(wanted[vni] >= revision for vni, revision in member.routes)
        alike = [each for each in some if each.host_id == member.host_id]
        assert all(
            (vni, revision) in [route for each in alike for route in each.routes]
            for vni, revision in wanted.items()
        )


@given(
    changes,
    st.sets(st.sampled_from(HOSTS)),
    st.dictionaries(st.sampled_from(VNIS), st.integers(0, 9)),
)
def test_what_is_touched_is_what_a_search_of_all_finds(
    done: list[tuple[bool, list[Pending]]], hosts: set[UUID], floors: dict[int, int]
) -> None:
    kept, model = after(done)
    found = kept.touched(hosts, floors)
    assert len(set(found)) == len(found)
    assert set(found) == {
        pending
        for pending in model
        if pending.cohort.host_id in hosts
        or any(revision <= floors.get(vni, -1) for vni, revision in pending.cohort.routes)
    }


@given(transactions())
def test_what_the_gateways_finished_is_found_once(some: list[Pending]) -> None:
    kept, _ = after([(False, some)])
    everything = dict.fromkeys(VNIS, 9)
    assert set(kept.touched([], everything)) == set(some)
    assert kept.touched([], everything) == []
    assert set(kept.touched(HOSTS, {})) == set(some)


@given(changes)
def test_nothing_is_left_of_what_was_discarded(done: list[tuple[bool, list[Pending]]]) -> None:
    kept, model = after(done)
    assert set(kept) == set(model)
    assert kept.sizes == sizes(model)
    for pending in model * 2:
        kept.discard(pending)
    assert kept.touched(HOSTS, dict.fromkeys(VNIS, 9)) == []
    assert (list(kept), kept.sizes, len(kept)) == ([], {}, 0)


@given(changes, changes)
def test_loading_and_forgetting_the_difference_makes_it_the_database_s(
    done: list[tuple[bool, list[Pending]]], others: list[tuple[bool, list[Pending]]]
) -> None:
    kept, before = after(done)
    _, database = after(others)
    for pending in before:
        pending.published_at = 5.0
    load, forget = kept.difference(dict(kept.sizes), sizes(database))

    kept.replace(forget, [])
    kept.replace(load, [pending for pending in database if pending.change in load])

    assert kept.sizes == sizes(database)
    known = {pending.change for pending in before}
    assert all(pending.published_at == 5.0 for pending in kept if pending.change in known)


@given(transactions())
def test_what_came_after_the_database_was_asked_is_not_forgotten(fresh: list[Pending]) -> None:
    kept = PendingSet()
    known = dict(kept.sizes)
    for pending in fresh:
        kept.put(pending)
    assert kept.difference(known, {}) == ([], [])


@pytest.mark.parametrize("size", [2, 9])
def test_a_part_has_the_vnics_and_times_of_its_instances(size: int) -> None:
    some = [
        Member(UUID(int=n << 64), HOSTS[0], float(n), [UUID(int=100 + n), UUID(int=200 + n)],
               [RoutesAt(1, 4), RoutesAt(2, 5)])
        for n in range(1, size + 1)
    ]  # fmt: skip
    (cohort,) = cohorts(some, InstanceState.BUILDING, {HOSTS[0]: 3}, 1.0)
    whole = Pending(cohort, published_at=7.0, reason="why")

    held = whole.has_any([some[1].vnics[1], UUID(int=1)])
    part = whole.part(held)

    assert held.tolist() == [False, True] + [False] * (size - 2)
    assert (part.instances(), part.vnics()) == ([some[1].id], some[1].vnics)
    assert (part.accepted().tolist(), part.asked_at) == ([2.0], 2.0)
    assert (part.published_at, part.reason, part.change) == (7.0, "why", whole.change)
