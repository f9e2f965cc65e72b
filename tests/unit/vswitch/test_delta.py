"""Reconciling by difference, against real gateway tables: what is held is never wrong for long."""

import asyncio
import os
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from rsp_world import VNI, TableGateway, TableHost, address, addresses, entries

from achelous_shared import rsp
from achelous_shared.route_following import keeper
from achelous_shared.routes import Routes
from achelous_shared.rsp_hash import destination_hash
from achelous_vswitch.fc import ForwardingCache

HOSTS = st.sampled_from([None, 2, 3])
NUMBERS = st.integers(0, 2)
SELDOM = st.sampled_from([False] * 7 + [True])


FIRST = dict.fromkeys(range(1, 21), 2)


def knowing_first(number: int) -> TableGateway:
    """A gateway that knows destinations 1 to 20 on host 2, at revision 1."""
    gateway = TableGateway(number)
    gateway.take(0, 1, entries(1, FIRST))
    return gateway


@pytest.fixture
def gateway() -> TableGateway:
    return knowing_first(0)


@pytest.fixture
def host(gateway: TableGateway) -> TableHost:
    """One that holds destinations 1 to 10."""
    host = TableHost([gateway])
    host.learn(*range(1, 11))
    host.tick()
    return host


def late(host: TableHost) -> float:
    """Changes of which it was noted how late they were acted on."""
    value = host.metrics.registry.get_sample_value("achelous_vswitch_route_late_seconds_count")
    return value or 0.0


def test_at_rest_one_question_names_each_vpc_and_no_entry(host: TableHost) -> None:
    host.client.bytes = host.client.messages = 0
    assert host.tick()
    assert (host.client.messages, host.client.bytes) == (2, 16 + 16 + 16 + 32)


def test_only_what_changed_of_what_is_held_is_asked_about(
    host: TableHost, gateway: TableGateway
) -> None:
    gateway.take(1, 2, entries(2, {3: 4, 15: 4, 7: None}))
    host.client.asked.clear()
    host.tick()
    assert sorted(host.client.asked) == [address(3), address(7)]
    assert host.held()[address(3)] == 4
    assert address(7) not in host.held()
    assert late(host) == 2


def test_a_lagging_gateway_does_not_count_as_fresh_and_another_is_asked(
    host: TableHost, gateway: TableGateway
) -> None:
    behind = knowing_first(1)
    host.gateways.append(behind)
    gateway.take(1, 2, entries(2, {3: 4}))
    host.tick(), host.tick()
    gateway.take(2, 3, entries(3, {5: 4}))
    host.tick(), host.tick()
    assert (host.held()[address(3)], host.held()[address(5)]) == (4, 4)


def test_what_a_lagging_gateway_taught_is_put_right(host: TableHost, gateway: TableGateway) -> None:
    behind = knowing_first(1)
    gateway.take(1, 2, entries(2, {15: 4}))
    host.tick()
    host.gateways[:] = [behind]
    host.learn(15)
    assert host.held()[address(15)] == 2
    host.gateways[:] = [gateway]
    host.tick()
    assert host.held()[address(15)] == 4


def test_a_gateway_that_forgot_has_all_entries_checked_once(
    host: TableHost, gateway: TableGateway
) -> None:
    gateway.start()
    gateway.read_whole(7, entries(7, dict.fromkeys(range(1, 10), 3)))
    host.client.asked.clear()
    host.tick(), host.tick()
    assert sorted(host.client.asked) == [address(n) for n in range(1, 11)]
    assert host.held() == {address(n): 3 for n in range(1, 10)}


def test_a_snapshot_after_a_gap_says_what_it_changed_and_no_more(
    host: TableHost, gateway: TableGateway
) -> None:
    same = entries(1, dict.fromkeys([2, 3, *range(5, 21)], 2))
    gateway.read_whole(9, np.concatenate((same, entries(9, {4: 3}))))
    host.client.asked.clear()
    host.tick()
    assert sorted(host.client.asked) == [address(1), address(4)]
    assert host.held() == {address(n): 2 for n in range(2, 11)} | {address(4): 3}


@pytest.mark.parametrize("ahead", [True, False])
def test_what_came_and_went_in_a_gap_is_checked_and_no_more(
    host: TableHost, gateway: TableGateway, ahead: bool
) -> None:
    """Whether the host stands before the gap or, if ``ahead``, in it."""
    other = knowing_first(1)
    other.take(1, 2, entries(2, {30: 4}))
    host.gateways[:] = [other]
    if ahead:
        host.tick()
    host.learn(30)
    assert host.held()[address(30)] == 4
    gateway.read_whole(3, entries(1, FIRST))
    host.gateways[:] = [gateway]
    host.client.asked.clear()
    host.tick()
    assert host.client.asked == [address(30)]
    assert host.held() == {address(n): 2 for n in range(1, 11)}
    host.client.asked.clear()
    host.tick()
    assert host.client.asked == []


def test_what_a_later_chunk_told_of_is_named_though_its_delta_was_lost(
    host: TableHost, gateway: TableGateway
) -> None:
    other = knowing_first(1)
    other.take(1, 2, entries(2, {15: 4}))
    host.gateways[:] = [other]
    host.tick()
    low = entries(1, {n: 2 for n in FIRST if n < 10})
    high = entries(1, {n: 2 for n in FIRST if n > 10 and n != 15})
    high = np.concatenate((high, entries(2, {15: 4})))
    gateway.begin_reading()
    gateway.read_chunk(2, low)
    gateway.read_chunk(3, high)  # 10 is gone since 3
    gateway.end_reading(2)
    gateway.read_whole(4, np.concatenate((low, high)))
    host.gateways[:] = [gateway]
    host.client.asked.clear()
    host.tick()
    assert host.client.asked == [address(10)]
    assert host.held() == {address(n): 2 for n in range(1, 10)}


def test_after_a_gap_of_too_many_changes_all_entries_are_checked(
    host: TableHost, gateway: TableGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "MAX_UNSAID", 1)
    gateway.read_whole(9, entries(1, dict.fromkeys(range(3, 21), 2)))
    host.client.asked.clear()
    host.tick()
    assert sorted(host.client.asked) == [address(n) for n in range(1, 11)]
    assert host.held() == {address(n): 2 for n in range(3, 11)}


def test_what_had_no_route_is_watched_too(host: TableHost, gateway: TableGateway) -> None:
    """It is asked for again as soon as it has one, though nothing else of its VPC is held."""
    bare = TableHost([gateway])
    bare.learn(30)
    assert len(bare.negatives) == 1
    gateway.take(1, 2, entries(2, {30: 4}))
    bare.tick()
    assert len(bare.negatives) == 0


def test_a_vpc_that_no_gateway_knows_any_more_is_forgotten(
    host: TableHost, gateway: TableGateway
) -> None:
    asyncio.run(gateway.keeper.forget(VNI))
    host.tick()
    assert host.held() == {}
    assert len(host.cache.views) == 0


def test_while_no_gateway_answers_everything_stays(host: TableHost, gateway: TableGateway) -> None:
    gateway.silent = True
    gateway.take(1, 2, entries(2, {3: 4}))
    assert host.tick()
    assert len(host.held()) == 10
    gateway.silent = False
    host.tick()
    assert host.held()[address(3)] == 4


def test_a_new_agent_checks_what_it_adopted(host: TableHost, gateway: TableGateway) -> None:
    gateway.take(1, 2, entries(2, {3: 4}))
    again = TableHost([gateway])
    again.dataplane.fc[:] = host.dataplane.fc
    for key, value in zip(*host.dataplane.fc_index.lookup_batch_all(), strict=True):
        again.dataplane.fc_index.update(key, value)
    again.cache.__init__(again.dataplane.fc, again.dataplane.fc_index, rest_s=0)  # type: ignore[misc]
    again.tick()
    assert again.held()[address(3)] == 4
    assert len(again.held()) == 10


class AnyOrder(RuleBasedStateMachine):
    """Two gateways, each with its own lag and gaps, against the routes as they are committed."""

    def __init__(self) -> None:
        super().__init__()
        self.deltas: list[Routes] = []
        self.truth: dict[int, tuple[int, int]] = {}
        """VTEP and revision of each route."""
        self.gateways = [TableGateway(0), TableGateway(1)]
        self.sent = [0, 0]
        """Deltas that were sent to each, whether it got them or not."""
        self.read_from = [0, 0]
        self.on_their_way: list[rsp.Entries] = []
        self.host = TableHost(list(self.gateways), slots=32)

    @initialize()
    def begin(self) -> None:
        """Faults are in what comes after the first routes are known."""
        self.commit({0: 2, 1: 2})
        for which in (0, 1):
            self.deliver(which, 1)

    @rule(routes=st.dictionaries(NUMBERS, HOSTS, min_size=1, max_size=2))
    def commit(self, routes: dict[int, int | None]) -> None:
        self.deltas.append(entries(len(self.deltas) + 1, routes))
        for number, vtep in routes.items():
            if vtep is None:
                self.truth.pop(number, None)
            else:
                self.truth[number] = vtep, len(self.deltas)

    @rule(which=st.integers(0, 1), steps=st.integers(1, 3), lost=st.booleans())
    def deliver(self, which: int, steps: int, lost: bool = False) -> None:
        for at in range(self.sent[which], min(self.sent[which] + steps, len(self.deltas))):
            self.sent[which] = at + 1
            if not lost:
                self.gateways[which].take(at, at + 1, self.deltas[at])

    @rule(which=st.integers(0, 1), restart=SELDOM)
    def begin_reading(self, which: int, restart: bool = False) -> None:
        gateway = self.gateways[which]
        if restart:
            gateway.start()
        if not gateway.reading:
            self.read_from[which] = len(self.deltas)
            gateway.begin_reading()
            gateway.read_chunk(len(self.deltas), self.part(range(1)))

    @rule(which=st.integers(0, 1))
    def end_reading(self, which: int) -> None:
        """The second of two chunks may hold what came after the first."""
        gateway = self.gateways[which]
        if gateway.reading:
            gateway.read_chunk(len(self.deltas), self.part(range(1, 3)))
            gateway.end_reading(self.read_from[which])

    def part(self, numbers: range) -> Routes:
        """The routes to these as they are now, each with its own revision."""
        found = {number: self.truth[number] for number in numbers if number in self.truth}
        table = entries(0, {number: vtep for number, (vtep, _) in found.items()})
        table["revision"] = [revision for _, revision in found.values()]
        return table

    @rule(which=st.integers(0, 1), silent=SELDOM)
    def mute(self, which: int, silent: bool) -> None:
        self.gateways[which].silent = silent

    @rule(number=NUMBERS)
    def learn(self, number: int) -> None:
        self.host.learn(number)

    @rule(numbers=st.sets(NUMBERS, min_size=1))
    def ask(self, numbers: set[int]) -> None:
        """The answer takes its time."""
        asked = rsp.requests([VNI] * len(numbers), addresses(numbers))
        replies = asyncio.run(self.host.client.ask(asked))
        if replies is not None:
            self.on_their_way.append(replies)

    @rule()
    def answer(self) -> None:
        if self.on_their_way:
            self.host.learner.take(self.on_their_way.pop(), time.monotonic_ns())

    @rule(which=st.integers(0, 1), number=NUMBERS)
    def push(self, which: int, number: int) -> None:
        self.host.push(self.gateways[which], number)

    @rule(number=NUMBERS)
    def forget(self, number: int) -> None:
        self.host.cache.forget(VNI, address(number))

    @rule()
    def tick(self) -> None:
        self.host.tick()

    def teardown(self) -> None:
        """When every gateway knows all, two ticks later so does the host, of what it holds."""
        for which, gateway in enumerate(self.gateways):
            gateway.silent = False
            self.deliver(which, len(self.deltas))
            self.end_reading(which)
            if gateway.revision < len(self.deltas):
                self.begin_reading(which)
                self.end_reading(which)
        self.host.tick(), self.host.tick()
        right = {address(number): vtep for number, (vtep, _) in self.truth.items()}
        for ip, vtep in self.host.held().items():
            assert right.get(ip) == vtep
        for number in self.truth:
            value = destination_hash(VNI, address(number))
            assert not self.host.negatives.holds(VNI, value, time.monotonic())


TestAnyOrder: Any = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=int(os.environ.get("ACHELOUS_ORDERS", 120)), stateful_step_count=40, deadline=None
)


def test_entries_of_equal_hash_are_all_found_and_gone_ones_are_not() -> None:
    host = TableHost([], slots=2000)
    cache: ForwardingCache = host.cache
    chains = cache._hashes
    for slot in range(1, 2001):
        chains.add(slot, slot % 700)
    for slot in range(1, 2001, 3):
        chains.remove(slot)
    found, places = chains.find(np.arange(0, 1400, dtype=np.uint32))
    assert sorted(found.tolist()) == [slot for slot in range(1, 2001) if slot % 3 != 1]
    assert (places == found % 700).all()
    assert len(addresses([])) == 0
