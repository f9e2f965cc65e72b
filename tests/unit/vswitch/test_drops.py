"""The latest samples of dropped packets: numbered, bounded, by vNIC."""

import numpy as np
import pytest
from vswitch_memory import layout

from achelous_vswitch.dataplane import Array
from achelous_vswitch.drops import Samples

MINE, OTHER = b"\x01" * 16, b"\x02" * 16


def samples(*lengths: int) -> Array:
    made = np.zeros(len(lengths), layout("ach_drop_sample"))
    made["length"] = lengths
    return made


def owners(*ids: bytes) -> Array:
    return np.array([list(owner) for owner in ids], np.uint8)


@pytest.fixture
def kept() -> Samples:
    """Room for four samples."""
    return Samples(layout("ach_drop_sample"), 4)


def test_samples_are_numbered_from_one(kept: Samples) -> None:
    kept.add(samples(60, 70), owners(MINE, OTHER))
    assert kept.after(0, 10, None) == ([1, 2], 0)
    assert (kept[2][0]["length"], kept[2][1]) == (70, OTHER)


def test_what_newer_ones_replaced_is_missed(kept: Samples) -> None:
    for length in range(6):
        kept.add(samples(length), owners(MINE))
    assert kept.after(1, 10, None) == ([3, 4, 5, 6], 1)
    assert kept[3][0]["length"] == 2


def test_more_at_once_than_there_is_room(kept: Samples) -> None:
    kept.add(samples(*range(10)), owners(*[MINE] * 10))
    assert kept.after(0, 10, None) == ([7, 8, 9, 10], 6)
    assert kept[10][0]["length"] == 9


def test_the_latest_are_shown_to_who_has_seen_none(kept: Samples) -> None:
    kept.add(samples(*range(4)), owners(*[MINE] * 4))
    assert kept.after(-1, 2, None) == ([3, 4], 0)


def test_who_goes_on_gets_the_oldest_first(kept: Samples) -> None:
    kept.add(samples(*range(4)), owners(*[MINE] * 4))
    assert kept.after(1, 2, None) == ([2, 3], 0)


def test_only_one_vnic(kept: Samples) -> None:
    kept.add(samples(*range(4)), owners(MINE, OTHER, MINE, OTHER))
    assert kept.after(-1, 10, OTHER) == ([2, 4], 0)
