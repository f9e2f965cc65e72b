"""The relay finds what the agent's table holds, whatever the agent does to it meanwhile."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from achelous_gateway import shared_table
from achelous_gateway.shared_table import SharedTable, map_sizes
from achelous_shared.bpf import BpfObject
from achelous_shared.route_following.table import Records
from achelous_shared.routes import ROUTE, RouteOp, Routes

pytestmark = pytest.mark.kernel

ROOT: Final = Path(__file__).parents[3]
SOURCE: Final = Path(__file__).with_name("hammer.bpf.c")
CAPACITY: Final = 3000
ADDRESSES: Final = 2048
VNI: Final = 7
OTHER: Final = 8


@pytest.fixture(scope="session")
def compiled(objects: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("hammer") / "hammer.bpf.o"
    folders = (objects, ROOT / "shared/bpf", ROOT / "services/gateway/bpf")
    options = ["-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3"]
    command = ["clang-16", *options, *(f"-I{folder}" for folder in folders)]
    subprocess.run(
        [*command, "-Wno-missing-declarations", "-c", str(SOURCE), "-o", str(target)],
        check=True, timeout=60,
    )  # fmt: skip
    return target


@pytest.fixture
def hammer(compiled: Path) -> Iterator[BpfObject]:
    """Maps of a gateway, empty, and a program that looks every address up."""
    constants = {"vni": VNI, "addresses": ADDRESSES}
    sizes = map_sizes(CAPACITY)
    with BpfObject.open(compiled, pin_dir=None, max_entries=sizes, rodata=constants) as loaded:
        yield loaded


def routes(numbers: np.ndarray, number: int, op: RouteOp = RouteOp.UPSERT) -> Routes:
    """Entries of these addresses; all fields of each say ``number``."""
    entries = np.zeros(len(numbers), ROUTE)
    entries["ip"][:, 10:12] = 0xFF
    entries["ip"][:, 12:] = (0x0A000000 + numbers).astype(">u4").view(np.uint8).reshape(-1, 4)
    entries["op"], entries["vtep"], entries["revision"] = op, number, number
    entries["mac"][:, :4] = np.frombuffer(number.to_bytes(4), np.uint8)
    entries["identity"] = number & 0xFFFF
    return entries


def looked_up(hammer: BpfObject) -> dict[str, int]:
    """What the program counted in one run."""
    counters = hammer.maps["hammered"]
    before = counters.per_cpu_all()[0]
    hammer.programs["hammer"].test_run(bytes(64))
    after = counters.per_cpu_all()[0]
    return {name: int((after[name] - before[name]).sum()) for name in after.dtype.names}


EVEN: Final = np.arange(0, ADDRESSES, 2)
ODD: Final = np.arange(1, ADDRESSES, 2)


def test_the_program_finds_every_route_and_no_other(hammer: BpfObject) -> None:
    table = SharedTable(CAPACITY, hammer.maps)
    table.load(OTHER, routes(ODD, 9))
    table.load(VNI, routes(EVEN, 5))
    counted = looked_up(hammer)
    assert (counted["missing"], counted["mixed"]) == (0, 0)
    assert counted["found"] == pytest.approx(65536 / 2, rel=0.05)

    table.remove(VNI, table.rows_except(VNI, np.zeros(0, np.int64)))
    assert looked_up(hammer)["found"] == 0


def test_keys_far_from_their_bucket_are_found(
    hammer: BpfObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    factors = np.array([1, 256, 1], np.uint64)  # the last byte of an address does not count
    monkeypatch.setattr(shared_table, "random_factors", lambda: factors)
    table = SharedTable(CAPACITY, hammer.maps)
    table.load(VNI, routes(EVEN, 5))
    assert (hammer.maps["route_passed"].mmap() > 0).sum() > 100
    assert looked_up(hammer)["missing"] == 0


def changes_all(table: SharedTable) -> Callable[[int], None]:
    def change(number: int) -> None:
        table.apply(VNI, routes(EVEN, number))

    return change


def comes_and_goes(table: SharedTable) -> Callable[[int], None]:
    """Half of the addresses lose their routes, to get others in the same rows."""

    def change(number: int) -> None:
        table.apply(VNI, routes(ODD, number))
        table.apply(OTHER, routes(ODD[:500], number))
        table.apply(VNI, routes(EVEN[::7], number))
        table.apply(VNI, routes(ODD, number, RouteOp.DELETE))
        table.apply(OTHER, routes(ODD[:500], number, RouteOp.DELETE))

    return change


def is_read_whole(table: SharedTable) -> Callable[[int], None]:
    def change(number: int) -> None:
        _, rows = table.restate(VNI, routes(EVEN, number))
        table.remove(VNI, table.rows_except(VNI, rows))

    return change


@pytest.mark.parametrize("writer", [changes_all, comes_and_goes, is_read_whole])
def test_no_route_is_missed_or_mixed_while_others_are_written(
    hammer: BpfObject, writer: Callable[[SharedTable], Callable[[int], None]]
) -> None:
    table = SharedTable(CAPACITY, hammer.maps)
    table.load(VNI, routes(EVEN, 5))
    change, ended = writer(table), threading.Event()
    changed = 0

    def write() -> None:
        nonlocal changed
        while not ended.is_set():
            changed += 1
            change(changed + 5)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        totals = {"found": 0, "missing": 0, "mixed": 0}
        least, most = time.monotonic() + 2, time.monotonic() + 60
        while time.monotonic() < least or (
            time.monotonic() < most and (totals["found"] <= 100_000 or changed <= 20)
        ):
            for name, count in looked_up(hammer).items():
                totals[name] += count
    finally:
        ended.set()
        thread.join()
    assert (totals["missing"], totals["mixed"]) == (0, 0)
    assert totals["found"] > 100_000
    assert changed > 20


def contents(table: SharedTable) -> dict[tuple[int, bytes], bytes]:
    found: dict[tuple[int, bytes], bytes] = {}
    for vni in (VNI, OTHER):
        rows = table.rows_except(vni, np.zeros(0, np.int64))
        assert len(rows) == table.count(vni)
        keys, values = table.keys(rows), table.values(rows)
        found |= {
            (vni, key["ip"].tobytes()): fields(value)
            for key, value in zip(keys, values, strict=True)
        }
    assert len(found) == len(table)
    return found


def fields(value: Records) -> bytes:
    return value["vtep"].tobytes() + value["mac"].tobytes() + value["revision"].tobytes()


def test_the_next_process_finds_the_table_as_it_was(hammer: BpfObject) -> None:
    table = SharedTable(CAPACITY, hammer.maps)
    for number in range(6, 12):
        table.apply(VNI, routes(EVEN, number))
        table.apply(OTHER, routes(ODD[:number], number))
    table.apply(VNI, routes(EVEN[:100], 20, RouteOp.DELETE))

    again = SharedTable(CAPACITY, hammer.maps)

    assert contents(again) == contents(table)
    again.apply(VNI, routes(EVEN, 30))
    again.apply(OTHER, routes(ODD, 30))
    assert len(again) == len(EVEN) + len(ODD)
    assert looked_up(hammer)["missing"] == 0


class Killed(Exception):
    """The writer is no more."""


@pytest.mark.parametrize("operation", ["apply", "load", "remove"])
@pytest.mark.parametrize("step", ["add", "replace", "_find_words", "_count_passed", "_places"])
def test_what_a_writer_left_in_the_middle_of_a_change_is_put_in_order(
    hammer: BpfObject, monkeypatch: pytest.MonkeyPatch, operation: str, step: str
) -> None:
    table = SharedTable(CAPACITY, hammer.maps)
    table.load(VNI, routes(EVEN, 5))
    index = table._index  # where a kill can strike
    with monkeypatch.context() as patch:
        plain = getattr(index, step)

        def die_after(*arguments: object) -> None:
            plain(*arguments)
            raise Killed

        patch.setattr(index, step, die_after)
        try:
            match operation:
                case "apply":
                    table.apply(VNI, routes(np.arange(0, ADDRESSES, 3), 6))
                case "load":
                    table.load(OTHER, routes(ODD, 6))
                case "remove":
                    table.remove(VNI, table.rows_except(VNI, np.zeros(0, np.int64))[:300])
        except Killed:
            pass

    again = SharedTable(CAPACITY, hammer.maps)

    contents(again)
    _, rows = again.restate(VNI, routes(EVEN, 7))
    again.remove(VNI, again.rows_except(VNI, rows))
    again.remove(OTHER, again.rows_except(OTHER, np.zeros(0, np.int64)))
    assert set(contents(again)) == {(VNI, entry["ip"].tobytes()) for entry in routes(EVEN, 7)}
    assert not hammer.maps["route_passed"].mmap().any()
    assert looked_up(hammer)["missing"] == 0


def test_rows_are_used_again_only_after_their_readers_have_ended(hammer: BpfObject) -> None:
    waits = 0

    def wait() -> None:
        nonlocal waits
        waits += 1

    table = SharedTable(CAPACITY, hammer.maps, wait)
    table.load(VNI, routes(EVEN, 5))
    words = hammer.maps["route_buckets"].mmap()["slots"]
    met: set[int] = set()
    number = 6
    while not waits:
        rows = {int(word) & 0xFFFFFFFF for word in words[words != 0]}
        assert waits or not rows & met
        table.apply(VNI, routes(EVEN, number))
        met |= rows
        number += 1
    assert number > 6


async def test_rows_that_rest_are_freed_aside(hammer: BpfObject) -> None:
    table = SharedTable(CAPACITY, hammer.maps)
    table.load(VNI, routes(EVEN, 5))
    assert not table.unsettled.is_set()
    table.apply(VNI, routes(EVEN, 6))
    table.apply(VNI, routes(EVEN, 7))
    assert table.unsettled.is_set()
    await table.settle_aside()
    assert not table.unsettled.is_set()
    assert len(table.rows_except(VNI, np.zeros(0, np.int64))) == len(EVEN)
