"""Maps of every kind hold what Python writes, and give back what programs wrote."""

import errno
from pathlib import Path

import numpy as np
import pytest

from achelous_shared.bpf import EXIST, NOEXIST, BpfError, BpfMap, BpfObject, MapType

pytestmark = pytest.mark.kernel

FRAME = bytes(64)


@pytest.fixture
def routes(loaded: BpfObject) -> BpfMap:
    return loaded.maps["routes"]


def entries(routes: BpfMap, count: int) -> tuple[np.ndarray, np.ndarray]:
    keys, values = np.zeros(count, routes.key_dtype), np.zeros(count, routes.value_dtype)
    keys["ip"][:, 12:] = np.arange(count, dtype=">u4").view("u1").reshape(count, 4)
    keys["vni"] = 7
    values["counter"] = np.arange(count)
    values["next_hop"] = 0xC6120001
    return keys, values


def test_maps_are_named_and_typed_as_in_c(loaded: BpfObject) -> None:
    kinds = {name: found.type for name, found in loaded.maps.items() if name[0] != "."}
    assert kinds == {
        "routes": MapType.HASH,
        "recently_used_flows": MapType.LRU_HASH,
        "ports": MapType.ARRAY,
        "labels": MapType.ARRAY,
        "counters": MapType.PERCPU_ARRAY,
        "sums": MapType.PERCPU_HASH,
        "events": MapType.RINGBUF,
    }
    assert loaded.maps["routes"].key_dtype.itemsize == 20
    assert loaded.maps["recently_used_flows"].value_dtype == np.uint64


def test_one_entry_is_written_read_and_removed(routes: BpfMap) -> None:
    keys, values = entries(routes, 2)
    routes.update(keys[1], values[1])
    assert routes.lookup(keys[1]) == values[1]
    assert routes.lookup(keys[0]) is None
    assert routes.delete(keys[1]) is True
    assert routes.delete(keys[1]) is False


def test_plain_integers_serve_where_c_has_integers(loaded: BpfObject) -> None:
    flows = loaded.maps["recently_used_flows"]
    flows.update(5, 1 << 40)
    assert flows.lookup(5) == 1 << 40
    with pytest.raises(OverflowError):
        flows.lookup(-1)


def test_a_bare_array_is_a_record_of_items(loaded: BpfObject) -> None:
    labels = loaded.maps["labels"]
    values = np.zeros(4, labels.value_dtype)
    values["items"] = np.arange(64, dtype="u1").reshape(4, 16)
    labels.update_batch(np.arange(4, dtype="u4"), values)
    second = labels.lookup(1)
    assert second is not None
    assert second["items"].tolist() == list(range(16, 32))


def test_flags_choose_between_create_and_replace(routes: BpfMap) -> None:
    keys, values = entries(routes, 1)
    with pytest.raises(BpfError) as absent:
        routes.update(keys[0], values[0], EXIST)
    routes.update(keys[0], values[0], NOEXIST)
    with pytest.raises(BpfError, match="routes") as present:
        routes.update(keys[0], values[0], NOEXIST)
    assert (absent.value.errno, present.value.errno) == (errno.ENOENT, errno.EEXIST)


def test_a_wrong_dtype_is_refused_before_the_kernel_sees_it(routes: BpfMap) -> None:
    keys, values = entries(routes, 2)
    with pytest.raises(TypeError, match="key of routes"):
        routes.lookup(np.uint32(1))
    with pytest.raises(TypeError, match="key of routes"):
        routes.lookup(keys)
    with pytest.raises(TypeError, match="value of routes must be a record"):
        routes.update(keys[0], 1)
    with pytest.raises(TypeError, match="values of routes"):
        routes.update_batch(keys, np.zeros(2, "u8"))
    with pytest.raises(TypeError, match=r"keys \(2,\) do not match values \(1,\)"):
        routes.update_batch(keys, values[:1])


def test_large_tables_cross_in_batches(routes: BpfMap) -> None:
    keys, values = entries(routes, 200_000)
    routes.update_batch(keys, values)
    got_keys, got_values = routes.lookup_batch_all()
    assert (got_keys.dtype, got_values.dtype) == (
        routes.key_dtype,
        routes.value_dtype,
    )  # byte order too
    order = np.argsort(got_values["counter"])
    assert np.array_equal(got_keys[order], keys)
    assert np.array_equal(got_values[order], values)


def test_rows_chosen_out_of_a_table_are_written_as_they_are(routes: BpfMap) -> None:
    keys, values = entries(routes, 100)
    routes.update_batch(keys[::2], values[::2])
    assert sorted(routes.lookup_batch_all()[1]["counter"]) == list(range(0, 100, 2))


def test_an_empty_map_and_empty_batches(routes: BpfMap) -> None:
    keys, values = entries(routes, 0)
    routes.update_batch(keys, values)
    assert routes.delete_batch(keys) == 0
    assert [len(part) for part in routes.lookup_batch_all()] == [0, 0]


@pytest.mark.parametrize("count", [1, 100, 4096])
def test_a_scan_in_slices_sees_each_entry_once(routes: BpfMap, count: int) -> None:
    keys, values = entries(routes, 10_000)
    routes.update_batch(keys, values)
    seen: list[int] = []
    cursor: bytes | None = None
    while True:
        _, some, cursor = routes.scan(cursor, count)
        seen += some["counter"].tolist()
        if cursor is None:
            break
    assert sorted(seen) == list(range(10_000))


def test_removing_a_batch_skips_what_is_not_there(routes: BpfMap) -> None:
    keys, values = entries(routes, 1000)
    routes.update_batch(keys[::2], values[::2])
    assert routes.delete_batch(keys[:600]) == 300
    assert len(routes.lookup_batch_all()[0]) == 200


def test_a_full_map_says_so(path: Path) -> None:
    with BpfObject.open(path, pin_dir=None, max_entries={"routes": 16}) as small:
        routes = small.maps["routes"]
        assert routes.max_entries == 16
        with pytest.raises(BpfError, match="entry 16 of 20 into map routes") as full:
            routes.update_batch(*entries(routes, 20))
        assert full.value.errno == errno.E2BIG
        assert len(routes.lookup_batch_all()[0]) == 16


def test_an_array_map_is_live_memory(loaded: BpfObject) -> None:
    ports = loaded.maps["ports"]
    view = ports.mmap()
    assert view.shape == (1000,)
    view["vni"][999] = 42
    loaded.programs["count"].test_run(FRAME, repeat=3)  # as from the loopback device, index 1
    last, first = ports.lookup(999), ports.lookup(1)
    assert last is not None
    assert first is not None
    assert last["vni"] == 42
    assert view["packets"][1] == first["packets"] == 3
    assert len(ports.lookup_batch_all()[0]) == 1000


def test_a_view_outlives_the_object(path: Path) -> None:
    with BpfObject.open(path, pin_dir=None) as loaded:
        view = loaded.maps["ports"].mmap()
    view["bytes"] += 1
    assert view["bytes"].sum() == 1000


def test_only_mmapable_maps_are_mapped(routes: BpfMap) -> None:
    with pytest.raises(BpfError, match="mmap map routes"):
        routes.mmap()


def test_per_cpu_counters_add_up(loaded: BpfObject) -> None:
    counters = loaded.maps["counters"]
    loaded.programs["count"].test_run(FRAME, repeat=5)
    table = counters.per_cpu_all()
    assert table.shape == (8, counters.cpus)
    assert table["packets"].sum(axis=1).tolist() == [0, 5, 0, 0, 0, 0, 0, 0]
    ran = counters.per_cpu_lookup(1)
    assert ran["bytes"].sum() == 5 * len(FRAME)
    assert np.array_equal(ran, table[1])
    counters.per_cpu_update(1, np.zeros_like(ran))
    assert not counters.per_cpu_all()["packets"].any()


def test_per_cpu_hashes_are_read_in_batches_too(loaded: BpfObject) -> None:
    sums = loaded.maps["sums"]
    loaded.programs["count"].test_run(FRAME, repeat=2)
    keys, values = sums.lookup_batch_all()
    assert (keys.tolist(), values.sum(axis=1).tolist()) == ([1], [2])
    sums.update_batch(np.array([3], "u4"), np.full((1, sums.cpus), 9, "u8"))
    assert sums.per_cpu_lookup(3).tolist() == [9] * sums.cpus
    with pytest.raises(KeyError, match="sums"):
        sums.per_cpu_lookup(4)
    with pytest.raises(TypeError, match="per_cpu_lookup"):
        sums.lookup(3)
    with pytest.raises(TypeError, match="not a PERCPU_ARRAY"):
        sums.per_cpu_all()
