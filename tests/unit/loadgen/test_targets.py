"""What a run says of its targets, and when a model's time is up."""

import pytest

from achelous_loadgen.options import QUICK, no_larger, with_churn
from achelous_loadgen.report.page import render
from achelous_loadgen.report.targets import targets
from achelous_loadgen.results import Fault, FcEntries, Learning, Quantiles, Results, Run
from achelous_loadgen.scenarios.learning import state_saved
from achelous_loadgen.scenarios.programming_time import Allowance

RUN = Run(started_at="2026-01-01T00:00:00", cpus=2, memory_gb=20.0, load_1m=0.5, attached=False)


def _took(p50: float, ratio: float | None = None) -> Quantiles:
    return Quantiles(p50_ms=p50, p99_ms=90.0, samples=9, parts={}, p50_ratio=ratio)


def test_the_largest_vpc_is_what_counts() -> None:
    times = {"alm": {"10": _took(10.0), "1000": _took(19.0, 1.05), "200": _took(99.0, 9.9)}}

    found = targets(Results(run=RUN, programming_time=times))

    assert [target.held for target in found] == [True, True, True]
    assert all("VPC of 1,000" in target.name for target in found)


def test_what_was_missed_is_marked_in_the_report() -> None:
    results = Results(run=RUN, faults={"leader-killed": Fault(converged_s=1.0, lost=1, wrong=0)})

    assert [target.held for target in targets(results)] == [False]
    assert "<td class=missed>missed</td><td>leader-killed" in render(results)


@pytest.mark.parametrize(("vpc", "named"), [(1_500_000, 1), (20_000, 0)])
def test_host_state_is_only_judged_where_the_target_is_set(vpc: int, named: int) -> None:
    """A host's peers are a tenth of a small VPC, however well it learns."""
    entries = FcEntries(mean=1_900.0, p90=2_000.0, p99=3_000.0, max=3_100.0)
    learning = Learning(
        vpc=vpc, fc_entries=entries, rsp_share=0.01, hosts=2, seconds=1.0, traffic_bytes=99,
        rsp_bytes=1, cdf=[1_900],
    )  # fmt: skip

    found = targets(Results(run=RUN, learning=learning, host_state_saved=state_saved(learning)))

    assert [target.held for target in found] == [True] * named


def test_what_was_not_run_has_no_targets() -> None:
    assert targets(Results(run=RUN)) == []


def test_a_size_that_does_not_fit_in_the_time_left_is_refused_with_the_reason() -> None:
    allowance = Allowance(60.0)
    assert allowance.refuses(10**6) is None  # nothing is known yet
    allowance.filled(1_000, 1.0)

    assert allowance.refuses(1_000) is None
    assert "would take about 1000 s" in (allowance.refuses(10**6) or "")


def test_sizes_can_be_limited_and_churn_be_given() -> None:
    assert no_larger(QUICK, 150).vpc == (10, 100, 150)
    changed = with_churn(QUICK, 7.0, None)
    assert (changed.churn_rate, changed.churn_s) == (7.0, QUICK.churn_s)
