"""The report of a run: figures beside the paper's, whatever was measured."""

from xml.etree import ElementTree

from achelous_loadgen.report.page import render
from achelous_loadgen.report.svg import plot
from achelous_loadgen.results import FcEntries, Learning, Quantiles, Results, Run

RUN = Run(started_at="2026-01-01T00:00:00", cpus=2, memory_gb=20.0, load_1m=0.5, attached=False)


def test_a_plot_is_an_image_with_a_line_for_each_series() -> None:
    lines = {"here": [(10.0, 0.01), (100.0, 0.02)], "paper": [(10.0, 1.0), (100.0, 1.1)]}

    image = ElementTree.fromstring(plot("t", ("x", "y"), lines, log_y=True))  # noqa: S314 - ours

    assert [text.text for text in image.iter("text")][-1] == "paper"
    assert len([path for path in image.iter("path") if path.get("stroke")]) == 2


def test_a_plot_without_points_says_so() -> None:
    assert "nothing was measured" in plot("Times", ("x", "y"), {"here": []}, log_y=True)


def test_programming_times_stand_beside_those_of_the_paper() -> None:
    times = {"alm": {"10": Quantiles(p50_ms=12.5, p99_ms=20.0, samples=5, parts={})}}

    page = render(Results(run=RUN, programming_time=times))

    assert "<td>12.5</td><td>20</td><td>1,030</td>" in page


def test_learning_stands_beside_the_paper_and_the_simulation_is_explained() -> None:
    entries = FcEntries(mean=10.0, p90=20.0, p99=30.0, max=31.0)
    learning = Learning(
        vpc=50, fc_entries=entries, rsp_share=0.01, hosts=2, seconds=1.0, traffic_bytes=99,
        rsp_bytes=1, cdf=[10, 31],
    )  # fmt: skip

    page = render(Results(run=RUN, learning=learning, host_state_saved=0.99))

    assert "<td>mean</td><td>10</td><td>1,900</td>" in page
    assert "leaves out" in page


def test_what_failed_is_said_as_text() -> None:
    run = Run(
        started_at="", cpus=2, memory_gb=20.0, load_1m=0.5, attached=False, failures=["burst: <x>"]
    )
    assert "burst: &lt;x&gt;" in render(Results(run=run))
