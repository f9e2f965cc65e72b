"""Routes that are programmed ahead, against a model: what a packet finds, whatever came before."""

import asyncio
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from vswitch_memory import memory_dataplane

from achelous_shared.route_following.table import Changes, RouteTable, latest
from achelous_shared.routes import ROUTE, RouteOp, Routes, ip_bytes
from achelous_shared.rsp_hash import destination_hashes
from achelous_vswitch.dataplane import Dataplane, vni_ip
from achelous_vswitch.fc import ForwardingCache, Route
from achelous_vswitch.partial_table import PartialTable
from achelous_vswitch.programmed import NO_LIMIT, ProgrammedSlots, slots_for
from achelous_vswitch.slot_stack import SlotStack

VNI = 9
LEARNED = 4
"""Slots of the forwarding cache below those of the programmed routes."""
CAPACITY = 62
"""All of two VPCs of 31 addresses."""

BATCHES = st.lists(
    st.tuples(
        st.integers(1, 2), st.dictionaries(st.integers(0, 30), st.integers(0, 3), max_size=20)
    ),
    max_size=10,
)
"""VNI, and number of an address -> host; 0 withdraws."""


def address(number: int) -> bytes:
    return ip_bytes(f"10.0.0.{number}" if number % 2 else f"fd00::{number:x}")


def delta(hosts: dict[int, int], revision: int = 1) -> Routes:
    made = np.zeros(len(hosts), ROUTE)
    for entry, (number, host) in zip(made, hosts.items(), strict=True):
        entry["ip"] = np.frombuffer(address(number), np.uint8)
        entry["op"] = RouteOp.UPSERT if host else RouteOp.DELETE
        entry["vtep"], entry["mac"], entry["identity"] = host, host, host
        entry["revision"] = revision
    return made


class Host:
    """A packet path, and what the agent that runs now knows of it."""

    def __init__(self, dataplane: Dataplane | None = None) -> None:
        self.dataplane = dataplane or memory_dataplane(fc=LEARNED + slots_for(CAPACITY))
        self.table = RouteTable(CAPACITY)
        self.cache = ForwardingCache(
            self.dataplane.fc[: LEARNED + 1], self.dataplane.fc_index, rest_s=0
        )
        self.slots = ProgrammedSlots(
            self.dataplane.fc, self.dataplane.fc_index, self.cache, CAPACITY, rest_s=0
        )
        self.slots.adopt(self.table)

    async def take(self, vni: int, entries: Routes) -> None:
        hashes = destination_hashes(vni, entries["ip"])
        await self.slots.apply(self.table.apply(vni, latest(entries, hashes)))

    def found(self, vni: int, number: int) -> tuple[int, Any] | None:
        """(slot, entry) as the packet path finds them: index, then entry."""
        slot = self.dataplane.fc_index.lookup(
            vni_ip(self.dataplane.fc_index.key_dtype, vni, address(number))
        )
        return None if slot is None else (int(slot), self.dataplane.fc[int(slot)].copy())

    def assert_is(self, model: dict[tuple[int, int], int]) -> None:
        for vni in (1, 2):
            for number in range(31):
                found, wanted = self.found(vni, number), model.get((vni, number), 0)
                assert (found is not None) == bool(wanted)
                if found is not None:
                    slot, entry = found
                    assert slot > LEARNED
                    assert entry["generation"] % 2 == 1
                    assert (entry["vni"], entry["ip"].tobytes()) == (vni, address(number))
                    assert (entry["vtep"], entry["identity"], entry["mtu"]) == (
                        wanted, wanted, NO_LIMIT,
                    )  # fmt: skip
        in_use = self.dataplane.fc["generation"][LEARNED + 1 :] % 2 == 1
        assert in_use.sum() == len(model) == len(self.table)


class TestProgrammedSlots:
    @settings(max_examples=60, deadline=None)
    @given(BATCHES, st.integers(0, 10))
    def test_a_packet_finds_what_was_last_said_and_a_restart_changes_nothing(
        self, batches: list[tuple[int, dict[int, int]]], restart_at: int
    ) -> None:
        async def run() -> None:
            host, model = Host(), dict[tuple[int, int], int]()
            for revision, (vni, hosts) in enumerate(batches, start=1):
                if revision == restart_at:
                    host = Host(host.dataplane)
                await host.take(vni, delta(hosts, revision))
                model |= {(vni, number): to for number, to in hosts.items()}
                model = {key: to for key, to in model.items() if to}
                host.assert_is(model)

        asyncio.run(run())

    async def test_a_changed_route_gets_another_slot_and_ends_the_old_ones_generation(
        self,
    ) -> None:
        host = Host()
        await host.take(VNI, delta({1: 1, 2: 1}))
        old_slot, old = host.found(VNI, 1) or pytest.fail("nothing there")
        kept = host.found(VNI, 2)

        await host.take(VNI, delta({1: 2}, revision=2))

        new_slot, new = host.found(VNI, 1) or pytest.fail("nothing there")
        assert new_slot != old_slot
        assert (new["vtep"], new["revision"]) == (2, 2)
        left = host.dataplane.fc[old_slot]
        assert left["generation"] == old["generation"] + 1
        assert left["vtep"] == old["vtep"]  # a packet in flight may still read it
        assert host.found(VNI, 2) == kept

    async def test_more_changes_than_slots_are_spare_wait_for_those_that_rest(self) -> None:
        capacity = 300
        dataplane = memory_dataplane(fc=slots_for(capacity))
        table = RouteTable(capacity)
        cache = ForwardingCache(dataplane.fc[:1], dataplane.fc_index)
        slots = ProgrammedSlots(dataplane.fc, dataplane.fc_index, cache, capacity, rest_s=0.01)
        slots.adopt(table)
        entries = np.repeat(delta({1: 1}), capacity)
        entries["ip"][:, 14] = np.arange(capacity) >> 8
        entries["ip"][:, 15] = np.arange(capacity) & 255
        for revision in range(1, 5):
            entries["vtep"], entries["revision"] = revision, revision
            await slots.apply(table.apply(VNI, entries))
        keys, found = dataplane.fc_index.lookup_batch_all()
        assert len(keys) == capacity
        assert set(dataplane.fc["vtep"][found].tolist()) == {4}

    async def test_the_forwarding_cache_has_its_own_slots(self) -> None:
        host = Host()
        await host.take(1, delta({1: 1}))
        programmed = host.found(1, 1)
        learned = Route(bytes([9] * 4), bytes(6), 1500, 9)

        assert host.cache.put(2, address(1), learned, 1)
        assert host.cache.put(1, address(1), learned, 1)  # it is programmed ahead: that stays
        host.cache.forget(1, address(1))

        assert len(host.cache) == 1
        assert host.found(1, 1) == programmed
        again = Host(host.dataplane)
        assert (len(again.table), len(again.cache)) == (1, 1)

    async def test_what_was_learned_gives_way_to_what_is_programmed(self) -> None:
        host = Host()
        for number in (1, 2):
            host.cache.put(1, address(number), Route(bytes([9] * 4), bytes(6), 1500, 1), 1)

        await host.take(1, delta({1: 1, 3: 1}))

        host.cache.remove(host.cache.used())
        assert host.found(1, 2) is None
        host.assert_is({(1, 1): 1, (1, 3): 1})


class TestPartialTable:
    def test_it_takes_what_fits_and_says_of_whom_it_does_not(self) -> None:
        table = PartialTable(3)
        assert len(table.apply(1, delta({1: 1, 2: 1}))) == 2
        assert not table.lacking
        assert len(table.apply(2, delta({1: 1, 2: 1, 3: 1}))) == 1
        assert table.lacking == {2}
        assert len(table) == 3

    def test_what_is_held_goes_on_changing(self) -> None:
        table = PartialTable(2)
        table.load(1, delta({1: 1, 2: 1, 3: 1}))
        changes = table.apply(1, delta({1: 2, 2: 0, 4: 1}, revision=2))
        assert isinstance(changes, Changes)
        assert (len(changes.keys), len(changes.removed)) == (1, 1)
        assert table.lacking == {1}

    def test_a_snapshot_tells_rows_only_of_what_it_holds(self) -> None:
        table = PartialTable(4)
        table.load(1, delta({1: 1, 2: 1, 3: 1}))
        _, rows = table.restate(1, delta({2: 1, 3: 1, 4: 1, 5: 1}))
        assert len(rows) == 3
        assert not len(table.rows_except(2, rows[:0]))


async def test_slots_rest_before_they_are_given_out_again() -> None:
    stack = SlotStack(1, 6, np.array([3]), rest_s=0.05)
    first = await stack.take(3)
    stack.give_back(first)
    assert set((await stack.take(1)).tolist()).isdisjoint(first.tolist())
    assert set((await stack.take(3)).tolist()) == set(first.tolist())
    with pytest.raises(ValueError, match="1 slots are wanted, 0 are left"):
        await stack.take(1)
