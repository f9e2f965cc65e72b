"""The forwarding cache against a model: what a packet would find, whatever was done before."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from vswitch_memory import memory_dataplane

from achelous_shared.routes import ip_bytes
from achelous_vswitch.dataplane import Dataplane, vni_ip
from achelous_vswitch.fc import ForwardingCache, Route

VNI = 9
SLOTS = 6


def address(number: int) -> bytes:
    return ip_bytes(f"10.0.0.{number}")


def route(vtep: int, revision: int = 1) -> Route:
    return Route(bytes([198, 18, 0, vtep]), b"\2\0\0\0\0\1", 1500, revision)


def found(dataplane: Dataplane, number: int) -> tuple[int, Any] | None:
    """(slot, entry) that the packet path finds for an address, as it looks: index, then entry."""
    key = vni_ip(dataplane.fc_index.key_dtype, VNI, address(number))
    slot = dataplane.fc_index.lookup(key)
    return None if slot is None else (int(slot), dataplane.fc[slot].copy())


@pytest.fixture
def dataplane() -> Dataplane:
    return memory_dataplane(fc=SLOTS)


@pytest.fixture
def cache(dataplane: Dataplane) -> ForwardingCache:
    return ForwardingCache(dataplane.fc, dataplane.fc_index, rest_s=0)


def test_a_changed_route_gets_another_slot_and_ends_the_old_ones_generation(
    cache: ForwardingCache, dataplane: Dataplane
) -> None:
    cache.put(VNI, address(1), route(1), 1)
    old_slot, old = found(dataplane, 1) or pytest.fail("nothing there")
    cache.put(VNI, address(1), route(2, revision=2), 2)
    new_slot, new = found(dataplane, 1) or pytest.fail("nothing there")
    assert new_slot != old_slot
    assert new["vtep"] == int.from_bytes(route(2).vtep)
    assert dataplane.fc["generation"][old_slot] == old["generation"] + 1
    assert dataplane.fc["vtep"][old_slot] == old["vtep"]  # a packet in flight may still read it


def test_a_receiver_whose_groups_changed_gets_another_slot_too(
    cache: ForwardingCache, dataplane: Dataplane
) -> None:
    cache.put(VNI, address(1), replace(route(1), identity=3), 1)
    old_slot, _ = found(dataplane, 1) or pytest.fail("nothing there")
    cache.put(VNI, address(1), replace(route(1, revision=2), identity=4), 2)
    new_slot, new = found(dataplane, 1) or pytest.fail("nothing there")
    assert (new_slot != old_slot, new["identity"]) == (True, 4)


def test_an_older_answer_does_not_undo_a_newer_one(
    cache: ForwardingCache, dataplane: Dataplane
) -> None:
    cache.put(VNI, address(1), route(1, revision=5), 1)
    assert cache.put(VNI, address(1), route(2, revision=4), 2)
    assert (found(dataplane, 1) or pytest.fail("nothing there"))[1]["revision"] == 5


def test_a_slot_rests_before_it_is_used_again(dataplane: Dataplane) -> None:
    cache = ForwardingCache(dataplane.fc, dataplane.fc_index, rest_s=60)
    for number in range(1, SLOTS + 1):
        assert cache.put(VNI, address(number), route(1), 1)
    cache.forget(VNI, address(1))
    assert not cache.put(VNI, address(99), route(1), 1)


def test_a_full_cache_makes_room_by_what_was_not_used_for_longest(
    cache: ForwardingCache, dataplane: Dataplane
) -> None:
    for number in range(1, SLOTS + 1):
        cache.put(VNI, address(number), route(1), 1)
        slot, _ = found(dataplane, number) or pytest.fail("nothing there")
        dataplane.fc["last_used_ns"][slot] = 100 - number
    cache.make_room()
    assert found(dataplane, SLOTS) is None
    assert found(dataplane, 1) is not None
    assert cache.evicted == 1


def test_unconfirmed_and_idle_entries_are_found_by_their_times(cache: ForwardingCache) -> None:
    cache.put(VNI, address(1), route(1), asked_ns=100)
    cache.put(VNI, address(2), route(1), asked_ns=200)
    (slot,) = cache.unconfirmed(150).tolist()
    assert cache.entries["ip"][slot].tobytes() == address(1)
    cache.confirm(np.array([slot]), np.array([1], np.uint64), 300)
    assert cache.unconfirmed(250).tolist() == [cache.slot_of(VNI, address(2))]
    cache.entries["last_used_ns"][slot] = 50
    assert cache.idle(60).tolist() == [slot]


def test_a_new_agent_adopts_the_entries_and_checks_them_at_once(
    cache: ForwardingCache, dataplane: Dataplane
) -> None:
    for number in (1, 2):
        cache.put(VNI, address(number), route(number), 10**9)
    before = found(dataplane, 1)
    again = ForwardingCache(dataplane.fc, dataplane.fc_index)
    assert found(dataplane, 1) == before
    assert len(again) == 2
    assert len(again.unconfirmed(0)) == 2


def test_a_new_agent_clears_what_one_that_died_had_half_done(dataplane: Dataplane) -> None:
    cache = ForwardingCache(dataplane.fc, dataplane.fc_index, rest_s=0)
    for number in (1, 2):
        cache.put(VNI, address(number), route(number), 1)
    orphan = cache.slot_of(VNI, address(1))
    dataplane.fc_index.delete(vni_ip(dataplane.fc_index.key_dtype, VNI, address(1)))
    stale = cache.slot_of(VNI, address(2))
    dataplane.fc["generation"][stale] += 1
    again = ForwardingCache(dataplane.fc, dataplane.fc_index)
    assert len(again) == 0
    assert dataplane.fc["generation"][orphan] % 2 == 0
    assert again.slot_of(VNI, address(2)) is None


class CacheMachine(RuleBasedStateMachine):
    """Any sequence of operations: index and entries agree, and nobody reads a wrong route."""

    def __init__(self) -> None:
        super().__init__()
        self.dataplane = memory_dataplane(fc=SLOTS)
        self.cache = ForwardingCache(self.dataplane.fc, self.dataplane.fc_index, rest_s=0)
        self.model: dict[int, Route] = {}
        self.sessions: list[tuple[int, int, int, Route]] = []

    @rule(number=st.integers(1, 9), vtep=st.integers(1, 3), revision=st.integers(1, 9))
    def put(self, number: int, vtep: int, revision: int) -> None:
        wanted = route(vtep, revision)
        held = self.model.get(number)
        if self.cache.put(VNI, address(number), wanted, 1) and (
            held is None or revision >= held.revision
        ):
            self.model[number] = wanted

    @rule(number=st.integers(1, 9))
    def forget(self, number: int) -> None:
        self.cache.forget(VNI, address(number))
        self.model.pop(number, None)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def open_session(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.model)))
        slot, entry = found(self.dataplane, number) or pytest.fail("nothing there")
        self.sessions.append((number, slot, int(entry["generation"]), self.model[number]))

    @rule()
    def restart(self) -> None:
        self.cache = ForwardingCache(self.dataplane.fc, self.dataplane.fc_index, rest_s=0)

    @invariant()
    def packets_find_what_the_model_says(self) -> None:
        for number in range(1, 10):
            seen, wanted = found(self.dataplane, number), self.model.get(number)
            assert (seen is None) == (wanted is None)
            if seen is not None and wanted is not None:
                assert seen[1]["generation"] % 2 == 1
                assert int(seen[1]["vtep"]) == int.from_bytes(wanted.vtep)
                assert seen[1]["revision"] == wanted.revision

    @invariant()
    def a_session_is_valid_only_while_its_route_is_the_current_one(self) -> None:
        for number, slot, generation, was in self.sessions:
            if self.dataplane.fc["generation"][slot] == generation:
                assert self.model[number].vtep == was.vtep

    @invariant()
    def every_slot_is_used_or_free(self) -> None:
        assert len(self.cache) == len(self.model)


CacheMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestCacheMachine = CacheMachine.TestCase
