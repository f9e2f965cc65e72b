"""The set of pending instances: found by id, host and VPC, whatever was put and discarded."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.programming.pending import Pending, PendingSet, PendingVnic

IDS, HOSTS = [UUID(int=n) for n in range(6)], [UUID(int=100 + n) for n in range(3)]
VNIS = range(1, 5)

instances = st.builds(
    Pending,
    id=st.sampled_from(IDS),
    state=st.sampled_from([InstanceState.BUILDING, InstanceState.DELETING]),
    host_id=st.sampled_from(HOSTS),
    host_revision=st.integers(1, 3),
    vnics=st.lists(
        st.builds(PendingVnic, st.uuids(), st.sampled_from(VNIS), st.integers(1, 9)), max_size=3
    ).map(tuple),
    accepted_at=st.just(0.0),
    committed_at=st.none(),
    published_at=st.none(),
)
changes = st.lists(st.one_of(instances, st.sampled_from(IDS)), max_size=30)
"""Instances to put, ids to discard."""


def after(done: list[Pending | UUID]) -> tuple[PendingSet, dict[UUID, Pending]]:
    """The set after these changes, and a plain dict after the same."""
    kept, model = PendingSet(), dict[UUID, Pending]()
    for change in done:
        if isinstance(change, Pending):
            kept.put(change)
            model.pop(change.id, None)
            model[change.id] = change
        else:
            kept.discard(change)
            model.pop(change, None)
    return kept, model


@given(
    changes,
    st.sets(st.sampled_from(HOSTS)),
    st.dictionaries(st.sampled_from(VNIS), st.integers(0, 9)),
)
def test_what_is_touched_is_what_a_search_of_all_finds(
    done: list[Pending | UUID], hosts: set[UUID], floors: dict[int, int]
) -> None:
    kept, model = after(done)
    found = kept.touched(hosts, floors)
    expected = {
        instance.id
        for instance in model.values()
        if instance.host_id in hosts
        or any(vnic.revision <= floors.get(vnic.vni, -1) for vnic in instance.vnics)
    }
    earlier = {i.id for i in done if isinstance(i, Pending)}  # whose revision is another's by now
    assert expected <= {instance.id for instance in found} <= earlier
    assert all(instance is model[instance.id] for instance in found)


@given(instances)
def test_what_the_gateways_finished_is_found_once(instance: Pending) -> None:
    kept, _ = after([instance])
    everything = dict.fromkeys(VNIS, 9)
    assert kept.touched([], everything) == ([instance] if instance.vnics else [])
    assert kept.touched([], everything) == []
    assert kept.touched([instance.host_id], {}) == [instance]


@given(changes)
def test_nothing_is_left_of_what_was_discarded(done: list[Pending | UUID]) -> None:
    kept, model = after(done)
    assert list(kept) == list(model.values())
    for instance_id in IDS:
        kept.discard(instance_id)
    assert kept.touched(HOSTS, dict.fromkeys(VNIS, 9)) == []
    assert kept == PendingSet()


@given(changes, changes)
def test_loading_and_forgetting_the_difference_makes_it_the_database_s(
    done: list[Pending | UUID], others: list[Pending | UUID]
) -> None:
    kept, _ = after(done)
    _, database = after(others)
    stored = {instance.id: instance.stage for instance in database.values()}
    load, forget = kept.difference(list(kept.by_id), stored)
    for instance_id in forget:
        kept.discard(instance_id)
    for instance_id in load:
        kept.put(database[instance_id])
    assert {instance.id: instance.stage for instance in kept} == stored


@given(instances)
def test_what_came_after_the_database_was_asked_is_not_forgotten(fresh: Pending) -> None:
    kept = PendingSet()
    known = list(kept.by_id)
    kept.put(fresh)
    assert kept.difference(known, {}) == ([], [])
