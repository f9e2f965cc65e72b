"""Room for rules: runs of words never overlap, and all of it is free in the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from achelous_vswitch.words import WordPool

SIZE = 64


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=60))
def test_runs_do_not_overlap_and_come_back_whole(steps: list[tuple[bool, int]]) -> None:
    pool, taken = WordPool(SIZE), list[tuple[int, int]]()
    for take, number in steps:
        if take:
            try:
                taken.append((pool.take(number), number))
            except OSError:
                assert pool.free < SIZE
        elif taken:
            pool.give_back(*taken.pop(number % len(taken)))
        used = [word for start, count in taken for word in range(start, start + count)]
        assert len(used) == len(set(used)) == SIZE - pool.free
        assert all(0 <= word < SIZE for word in used)
    for run in taken:
        pool.give_back(*run)
    assert pool.take(SIZE) == 0


def test_a_run_that_is_in_use_cannot_be_claimed() -> None:
    pool = WordPool(SIZE)
    pool.claim(10, 20)
    for start, count in ((5, 6), (29, 1), (60, 5), (10, 20)):
        with pytest.raises(ValueError, match="are not free"):
            pool.claim(start, count)
    pool.claim(30, 34)
    assert pool.free == 10


def test_what_does_not_fit_is_refused_with_the_setting_that_helps() -> None:
    pool = WordPool(SIZE)
    pool.claim(32, 1)
    with pytest.raises(OSError, match=r"no 40 words in a row .* 63 .*ACHELOUS_MAX_RULE_WORDS"):
        pool.take(40)
