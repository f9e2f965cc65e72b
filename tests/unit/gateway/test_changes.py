"""The log of changes against a list of all that ever changed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from achelous_gateway.changes import ChangeLogs, VpcLog

BATCHES = st.lists(st.integers(0, 12), max_size=30)


def log_of(batches: list[int], limit: int) -> tuple[VpcLog, list[tuple[int, int]]]:
    """A log with so many changes at revisions 1, 2, ...; and (revision, hash) of each."""
    log, all_changes = VpcLog(0, limit), list[tuple[int, int]]()
    for revision, count in enumerate(batches, start=1):
        hashes = np.arange(len(all_changes), len(all_changes) + count, dtype=np.uint32)
        log.append(revision, hashes, revision * 1_000_000)
        all_changes += [(revision, number) for number in hashes.tolist()]
    return log, all_changes


@given(BATCHES, st.integers(0, 31), st.integers(1, 40))
def test_an_answer_has_every_change_of_its_revisions_or_there_is_none(
    batches: list[int], since: int, limit: int
) -> None:
    log, every = log_of(batches, limit=32)
    stand = len(batches)
    found = log.since(min(since, stand), stand, limit, 10**9)
    assert len(log) <= 32
    if found is None:
        assert since < log.floor
        return
    assert len(found.hashes) <= limit
    assert found.hashes.tolist() == [
        number for revision, number in every if since < revision <= found.revision
    ]


@given(BATCHES)
def test_asked_on_and_on_everything_is_named_once(batches: list[int]) -> None:
    log, every = log_of(batches, limit=1024)
    at, named = 0, list[int]()
    while at < len(batches):
        found = log.since(at, len(batches), 12, 10**9)
        assert found is not None
        assert found.revision > at
        at = found.revision
        named += found.hashes.tolist()
    assert named == [number for _, number in every]


def test_the_log_reaches_back_as_far_as_its_limit_allows() -> None:
    log, _ = log_of([1] * 100, limit=32)
    assert log.floor >= 100 - 32
    assert log.since(log.floor - 1, 100, 100, 10**9) is None
    assert log.since(log.floor, 100, 100, 10**9) is not None


def test_a_gap_is_told_of_to_whom_it_concerns_and_only_the_last_is_remembered() -> None:
    log, _ = log_of([1, 1, 1], limit=32)
    log.append(6, np.array([77], np.uint32), 10**6, gap=3)
    log.append(7, np.array([78], np.uint32), 10**6)
    told = {since: log.since(since, 7, 100, 10**9) for since in range(7)}
    assert {since: found and found.gap for since, found in told.items()} == {
        **dict.fromkeys(range(6), 3), 6: None
    }  # fmt: skip
    assert [found and found.hashes.tolist() for found in (told[2], told[4], told[6])] == [
        [2, 77, 78], [77, 78], [78]
    ]  # fmt: skip
    cut = log.since(0, 7, 2, 10**9)
    assert cut is not None
    assert (cut.revision, cut.gap) == (2, None)
    log.append(9, np.zeros(0, np.uint32), 10**6, gap=7)
    assert log.since(5, 9, 100, 10**9) is None
    found = log.since(6, 9, 100, 10**9)
    assert found is not None
    assert (found.gap, found.hashes.tolist()) == (7, [78])


def test_a_gap_in_which_nothing_differed_is_a_gap() -> None:
    logs = ChangeLogs()
    logs.begin(7, 1)
    logs.append(7, 5, np.zeros(0, np.uint32), 10**6, gap=1)
    found = logs.since(7, 3, 5, 100, 10**9)
    assert found is not None
    assert (found.gap, len(found.hashes)) == (1, 0)


def test_an_age_is_since_the_change_was_applied() -> None:
    log, _ = log_of([1, 1], limit=32)
    found = log.since(0, 2, 10, 70_000_000)
    assert found is not None
    assert found.ages_ms.tolist() == [69, 68]


def test_all_logs_together_are_bounded_and_the_quiet_ones_go_first() -> None:
    logs = ChangeLogs(per_vpc=256, in_all=1024)
    for vni in range(1, 20):
        logs.begin(vni, 0)
        logs.append(vni, 1, np.arange(128, dtype=np.uint32), 0)
    assert logs.since(1, 0, 1, 1000, 0) is None
    found = logs.since(19, 0, 1, 1000, 0)
    assert found is not None
    assert len(found.hashes) == 128
    logs.append(1, 2, np.zeros(1, np.uint32), 0)  # a log that was given up begins anew
    logs.append(1, 3, np.zeros(1, np.uint32), 0)
    assert logs.since(1, 1, 3, 1000, 0) is None
    assert logs.since(1, 2, 3, 1000, 0) is not None


def test_where_nothing_changed_no_log_is_needed() -> None:
    found = ChangeLogs().since(5, 7, 7, 10, 0)
    assert found is not None
    assert (found.revision, len(found.hashes)) == (7, 0)
