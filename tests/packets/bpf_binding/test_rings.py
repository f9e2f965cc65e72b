"""Events of a ring buffer arrive whole, in order, once."""

import asyncio
import errno
import select
from pathlib import Path

import numpy as np
import pytest

from achelous_shared.bpf import BpfError, BpfObject, RingBuffer, dtype_of

pytestmark = pytest.mark.kernel

FRAME = bytes(64)
BUSY = 1 << 31


@pytest.fixture
def ring(loaded: BpfObject) -> RingBuffer:
    return RingBuffer(loaded.maps["events"], dtype_of(loaded, "bt_event"))


def test_events_arrive_and_discarded_ones_do_not(loaded: BpfObject, ring: RingBuffer) -> None:
    assert len(ring.read(10)) == 0
    loaded.programs["emit"].test_run(FRAME, mark=8)
    events = ring.read(100)
    assert events["number"].tolist() == [0, 1, 3, 4, 6, 7]
    assert (events["peer"] == 0xC0A80201).all()
    assert (events["length"] == len(FRAME)).all()
    assert len(ring.read(100)) == 0


def test_the_limit_is_of_events_and_the_rest_waits(loaded: BpfObject, ring: RingBuffer) -> None:
    loaded.programs["emit"].test_run(FRAME, mark=8)
    assert ring.read(3)["number"].tolist() == [0, 1, 3]
    assert ring.read(2)["number"].tolist() == [4, 6]
    assert ring.read(2)["number"].tolist() == [7]


def test_records_that_wrap_around_the_end_are_whole(loaded: BpfObject, ring: RingBuffer) -> None:
    for _ in range(50):  # about five times the ring's 16 KiB
        assert loaded.programs["emit"].test_run(FRAME, mark=50).retval == 50
        events = ring.read(1000)
        assert events["number"].tolist() == [i for i in range(50) if i % 3 != 2]
        assert (events["peer"] == 0xC0A80201).all()


def test_a_full_ring_loses_the_newest(loaded: BpfObject, ring: RingBuffer) -> None:
    stopped_at = loaded.programs["emit"].test_run(FRAME, mark=4000).retval
    assert stopped_at < 4000
    assert ring.read(4000)["number"].max() >= stopped_at - 3
    assert loaded.programs["emit"].test_run(FRAME, mark=50).retval == 50


def test_a_ring_is_rounded_up_to_a_power_of_two(path: Path, pins: Path) -> None:
    for _ in ("made", "adopted"):
        with BpfObject.open(path, pin_dir=pins, max_entries={"events": 5000}) as loaded:
            ring = RingBuffer(loaded.maps["events"], dtype_of(loaded, "bt_event"))
            assert loaded.maps["events"].max_entries == 8192
            loaded.programs["emit"].test_run(FRAME, mark=200)
            assert len(ring.read(1000)) == 134


def test_a_record_still_being_written_stops_the_read(loaded: BpfObject, ring: RingBuffer) -> None:
    loaded.programs["emit"].test_run(FRAME, mark=8)
    # No program can leave a record reserved: the same bytes with the flag set in the fourth.
    written = np.frombuffer(ring._data, np.uint8).copy()
    written[3 * 32 : 3 * 32 + 4].view(np.uint32)[:] |= BUSY
    ring._data = written.data
    assert ring.read(100)["number"].tolist() == [0, 1]
    assert len(ring.read(100)) == 0
    written[3 * 32 : 3 * 32 + 4].view(np.uint32)[:] &= ~np.uint32(BUSY)
    assert ring.read(100)["number"].tolist() == [3, 4, 6, 7]


def test_records_of_another_size_are_refused(loaded: BpfObject) -> None:
    ring = RingBuffer(loaded.maps["events"], np.dtype("u8"))
    loaded.programs["emit"].test_run(FRAME, mark=1)
    with pytest.raises(BpfError, match="record of 20 bytes where the dtype has 8") as refused:
        ring.read(10)
    assert refused.value.errno == errno.EPROTO


def test_only_a_ring_is_read_as_one(loaded: BpfObject) -> None:
    with pytest.raises(TypeError, match="routes is a HASH, not a RINGBUF"):
        RingBuffer(loaded.maps["routes"], np.dtype("u8"))


async def test_the_event_loop_wakes_for_each_burst(loaded: BpfObject, ring: RingBuffer) -> None:
    loop = asyncio.get_running_loop()
    bursts: asyncio.Queue[int] = asyncio.Queue(16)
    loop.add_reader(ring.fd, lambda: bursts.put_nowait(len(ring.read(1000))))
    try:
        for mark in (3, 30):
            loaded.programs["emit"].test_run(FRAME, mark=mark)
            assert await asyncio.wait_for(bursts.get(), 5) == mark * 2 // 3
    finally:
        loop.remove_reader(ring.fd)
    assert select.select([ring.fd], [], [], 0)[0] == []
