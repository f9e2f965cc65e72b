"""The route table against a plain dictionary."""

from collections.abc import Iterable
from dataclasses import dataclass

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from achelous_shared.route_following import index
from achelous_shared.route_following.table import KEY, VALUE, Changes, RouteTable, TableFull, latest
from achelous_shared.routes import ROUTE, RouteOp, Routes, ip_bytes
from achelous_shared.rsp_hash import destination_hashes


@dataclass(frozen=True)
class Entry:
    """One entry of a delta; `host` stands for VTEP and MAC."""

    address: int
    op: RouteOp
    host: int
    revision: int


Model = dict[tuple[int, bytes], tuple[int, bytes, int]]
"""(VNI, address) -> (VTEP, MAC, revision)."""

ENTRIES = st.builds(
    Entry, st.integers(0, 40), st.sampled_from(RouteOp), st.integers(0, 3), st.integers(1, 9)
)
BATCHES = st.lists(st.tuples(st.integers(1, 3), st.lists(ENTRIES, max_size=60)), max_size=12)


def packed(entries: Iterable[Entry]) -> Routes:
    entries = list(entries)
    table = np.zeros(len(entries), ROUTE)
    for at, entry in enumerate(entries):
        table[at]["ip"] = np.frombuffer(address(entry.address), np.uint8)
        table[at]["op"] = entry.op
        table[at]["vtep"] = 0xC6120000 + entry.host
        table[at]["mac"] = entry.host
        table[at]["revision"] = entry.revision
    return table


def last_of_each(entries: Iterable[Entry]) -> Routes:
    table = packed(entries)
    return latest(table, destination_hashes(1, table["ip"]))


def address(number: int) -> bytes:
    """IPv4 for even numbers, IPv6 for odd ones."""
    return ip_bytes(f"10.0.{number}.1") if number % 2 == 0 else ip_bytes(f"2001:db8:{number}::1")


def contents(table: RouteTable, vnis: Iterable[int] = (1, 2, 3)) -> Model:
    found: Model = {}
    for vni in vnis:
        rows = table.rows_except(vni, np.zeros(0, np.int64))
        assert len(rows) == table.count(vni)
        found |= as_model(table.keys(rows), table.values(rows))
    return found


def as_model(keys: Routes, values: Routes) -> Model:
    return {
        (int(key["vni"]), key["ip"].tobytes()): (
            int(value["vtep"]), value["mac"].tobytes(), int(value["revision"]),
        )
        for key, value in zip(keys, values, strict=True)
    }  # fmt: skip


def apply_to_model(model: Model, vni: int, entries: Iterable[Entry]) -> None:
    winners: dict[int, Entry] = {}
    for entry in entries:
        held = winners.get(entry.address)
        if held is None or entry.revision >= held.revision:
            winners[entry.address] = entry
    for entry in winners.values():
        key = (vni, address(entry.address))
        if key in model and model[key][2] > entry.revision:
            continue
        if entry.op is RouteOp.UPSERT:
            model[key] = (0xC6120000 + entry.host, bytes([entry.host] * 6), entry.revision)
        else:
            model.pop(key, None)


def follow(mirror: Model, changes: Changes) -> None:
    """What a data plane does with changes."""
    for key in changes.removed:
        del mirror[int(key["vni"]), key["ip"].tobytes()]
    mirror |= as_model(changes.keys, changes.values)


@pytest.fixture(params=["hash", "everything collides"])
def hashing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table as it is, and with two hashes for all keys: every probe and compare is needed."""
    if request.param == "everything collides":

        def two(_: index.KeyIndex, keys: index.Keys) -> index.Hashes:
            return keys[:, 1] % np.uint64(2) << np.uint64(63)

        monkeypatch.setattr(index.KeyIndex, "_hash", two)


@pytest.mark.usefixtures("hashing")
class TestAgainstModel:
    @settings(max_examples=150, deadline=None)
    @given(BATCHES)
    def test_deltas_leave_what_a_dictionary_would_hold(
        self, batches: list[tuple[int, list[Entry]]]
    ) -> None:
        table, model, mirror = RouteTable(200), Model(), Model()
        for vni, entries in batches:
            follow(mirror, table.apply(vni, last_of_each(entries)))
            apply_to_model(model, vni, entries)
            assert contents(table) == model == mirror
            assert len(table) == len(model)

    @settings(max_examples=150, deadline=None)
    @given(BATCHES, st.integers(1, 3), st.lists(ENTRIES, max_size=40))
    def test_a_snapshot_replaces_one_vpc_and_changes_only_what_differs(
        self, batches: list[tuple[int, list[Entry]]], vni: int, entries: list[Entry]
    ) -> None:
        table = RouteTable(200)
        for other, delta in batches:
            table.apply(other, last_of_each(delta))
        before = contents(table)
        mirror = dict(before)
        chunk = last_of_each(entries)

        changes, rows = table.restate(vni, chunk)
        follow(mirror, changes)
        follow(mirror, table.remove(vni, table.rows_except(vni, rows)))

        after = contents(table)
        snapshot = np.zeros(len(chunk), KEY)
        snapshot["vni"], snapshot["ip"] = vni, chunk["ip"]
        assert mirror == after
        assert {k: v for k, v in after.items() if k[0] == vni} == as_model(snapshot, chunk)
        assert {k: v for k, v in after.items() if k[0] != vni} == {
            k: v for k, v in before.items() if k[0] != vni
        }
        rewritten = as_model(changes.keys, changes.values)
        assert all(before.get(key) != value for key, value in rewritten.items())

    def test_lookup_finds_each_of_many_and_nothing_else(self) -> None:
        table = RouteTable(3000)
        addresses = packed(Entry(n % 256, RouteOp.UPSERT, 0, 1) for n in range(256))
        for vni in range(1, 9):
            table.apply(vni, addresses)
        table.apply(5, packed(Entry(n, RouteOp.DELETE, 0, 2) for n in range(100)))

        for vni in range(1, 10):
            rows = table.lookup(vni, addresses["ip"])
            missing = {1: 0, 5: 100, 9: 256}.get(vni, 0)
            assert (rows < 0).sum() == missing
            found = table.keys(rows[rows >= 0])
            assert (found["vni"] == vni).all()
            assert (found["ip"] == addresses["ip"][rows >= 0]).all()


def test_addresses_whose_hashes_meet_stay_apart() -> None:
    delta = [Entry(n % 5, RouteOp.UPSERT, n, n) for n in range(9)]
    kept = latest(packed(delta), np.zeros(len(delta), np.uint32))
    assert sorted(kept["revision"].tolist()) == [4, 5, 6, 7, 8]


def test_the_byte_order_of_entries_is_nobodys_concern() -> None:
    entries = packed(Entry(n, RouteOp.UPSERT, n, n) for n in range(1, 9))
    joined = np.concatenate((entries[:3], entries[3:]))
    assert joined.dtype != entries.dtype
    tables = RouteTable(10), RouteTable(10)
    for table, batch in zip(tables, (entries, joined), strict=True):
        table.apply(1, batch)
    assert contents(tables[0]) == contents(tables[1])


def test_a_vni_is_part_of_the_key() -> None:
    table = RouteTable(10)
    table.apply(1, packed([Entry(2, RouteOp.UPSERT, 1, 1)]))
    table.apply(2, packed([Entry(2, RouteOp.UPSERT, 2, 1)]))
    ips = np.frombuffer(address(2) * 4, np.uint8).reshape(4, 16)

    rows = table.lookup(np.array([1, 2, 0, 2**32 - 1], np.uint32), ips)

    assert table.values(rows[:2])["vtep"].tolist() == [0xC6120001, 0xC6120002]
    assert rows[2:].tolist() == [-1, -1]


def test_a_late_delete_leaves_the_new_owners_route() -> None:
    table = RouteTable(10)
    table.apply(1, packed([Entry(2, RouteOp.UPSERT, 1, 7)]))
    assert not len(table.apply(1, packed([Entry(2, RouteOp.DELETE, 0, 6)])))
    assert table.count(1) == 1


def test_a_full_table_takes_nothing_of_a_batch_and_says_what_to_raise() -> None:
    table = RouteTable(10)
    table.apply(1, packed(Entry(n, RouteOp.UPSERT, 1, 1) for n in range(8)))
    before = contents(table)

    with pytest.raises(TableFull, match=r"4 more .* 8 held .* 10: raise ACHELOUS_ROUTE_CAPACITY"):
        table.apply(1, packed(Entry(n, RouteOp.UPSERT, 2, 2) for n in range(4, 12)))

    assert contents(table) == before


def test_a_full_table_lets_one_route_go_for_another() -> None:
    table = RouteTable(10)
    table.apply(1, packed(Entry(n, RouteOp.UPSERT, 1, 1) for n in range(10)))
    delta = [Entry(3, RouteOp.DELETE, 0, 2), Entry(20, RouteOp.UPSERT, 1, 2)]
    changes = table.apply(1, packed(delta))
    assert (len(changes.keys), len(changes.removed), len(table)) == (1, 1, 10)


def test_a_seeded_table_is_as_the_one_it_was_taken_from() -> None:
    table, copy = RouteTable(100), RouteTable(100)
    for vni in (1, 3):
        table.apply(vni, packed(Entry(n, RouteOp.UPSERT, vni, n + 1) for n in range(30)))
    rows = table.lookup(np.repeat([1, 3], 30), np.tile(
        np.frombuffer(b"".join(map(address, range(30))), np.uint8).reshape(30, 16), (2, 1)
    ))  # fmt: skip

    copy.seed(table.keys(rows), table.values(rows))

    assert contents(copy) == contents(table)
    assert copy.vnis() == [1, 3]
    assert copy.values(rows).dtype == VALUE


@pytest.mark.parametrize("kept", [30, 10], ids=["rows as they come", "rows used before"])
def test_a_vpc_that_is_loaded_is_as_one_that_is_restated(kept: int) -> None:
    chunk = packed(Entry(n, RouteOp.UPSERT, 2, n + 1) for n in range(25))
    tables = RouteTable(100), RouteTable(100)
    for table in tables:
        table.apply(1, packed(Entry(n, RouteOp.UPSERT, 1, 1) for n in range(30)))
        table.remove(1, table.rows_except(1, np.arange(1, kept + 1)))
    loaded, _ = tables[0].load(2, chunk)
    restated, _ = tables[1].restate(2, chunk)

    assert contents(tables[0]) == contents(tables[1])
    assert as_model(loaded.keys, loaded.values) == as_model(restated.keys, restated.values)
    assert len(tables[0].lookup(2, chunk["ip"])) == tables[0].count(2) == 25
    assert (tables[0].lookup(2, chunk["ip"]) > 0).all()


def test_an_empty_page_can_be_loaded() -> None:
    changes, rows = RouteTable(100).load(2, packed([]))
    assert len(changes) == len(rows) == 0
