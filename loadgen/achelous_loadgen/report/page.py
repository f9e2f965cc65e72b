"""The report: one page of HTML that needs nothing else."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

import msgspec

from achelous_loadgen.report import paper
from achelous_loadgen.report.svg import Points, bars, plot
from achelous_loadgen.report.targets import targets
from achelous_loadgen.results import Fault, Learning, Quantiles, Results

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .8rem; text-align: left;
border-bottom: 1px solid #ddd } svg { max-width: 100%; font-size: 12px } .grid { stroke: #e5e7eb }
.missed { color: #b91c1c; font-weight: 600 }
"""

_LEFT_OUT: Final = """Simulated hosts run the real agent on a packet path of memory. Left out are:
packets themselves, so a relay that would take one along counts only once it has been learned; eBPF
maps and programs, and the milliseconds that the kernel takes to hook a new device; probes of
gateways over the underlay, in whose place a gateway's last report tells whether it is live; devices
that appear late; sessions; bytes in the decision what is worth learning. Gateways run without a
relay, but for the one whose relay is measured. All simulated hosts share one process and this
machine with what is measured. Hosts that only fill a large VPC, those that churn is on, and 38 of
the 40 in a burst apply nothing: they report what they were told, each two seconds for a minute, and
then nothing until they are told something new (a real one reports each second). Where routes are
programmed ahead, a few simulated hosts hold them, not the thousands that a fleet has. Single
changes are on hosts of that kind, too. A move is a cold one: nothing runs in the instances. That a
gateway has a change is known when it says so, asked upon its report: late by a fraction of a
millisecond for a lone change, and by 5 ms at most in churn, where reports gather for so long."""


def render(found: Results) -> str:
    """The page."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Achelous under load</title>",
        f"<style>{_STYLE}</style><h1>Achelous under load</h1>",
        _run(found),
        _targets(found),
    ]
    if found.programming_time:
        parts.append(_programming(found.programming_time, found.programming_time_stopped))
    if found.learning:
        parts.append(_learning(found.learning, found.host_state_saved))
    for title, part in (
        ("Burst", found.burst),
        ("Churn", found.churn),
        ("Churn at a rate that is kept up with", found.churn_at_ease),
        ("Controllers", found.controller),
        ("One gateway", found.gateway),
        ("Keeping what was learned true", found.reconcile),
    ):
        if part is not None:
            parts += [f"<h2>{title}</h2>", _facts(part)]
    if found.faults:
        parts.append(_faults(found.faults))
    parts += [_services(found), f"<h2>What the simulation leaves out</h2><p>{_LEFT_OUT}</p>"]
    return "\n".join(parts) + "</html>\n"


def _run(found: Results) -> str:
    run = found.run
    failures = "".join(f"<li>{escape(failure)}</li>" for failure in run.failures)
    return (
        f"<p>{escape(run.started_at)}, {run.seconds:g} s on {run.cpus} CPUs and {run.memory_gb:g}"
        f" GB; load when it began: {run.load_1m:.1f}.</p>"
        + (f"<p>Not measured:</p><ul>{failures}</ul>" if failures else "")
    )


def _targets(found: Results) -> str:
    rows = [
        ("held" if target.held else "missed", target.name, target.reached, target.wanted)
        for target in targets(found)
    ]
    return _table(("", "target", "reached", "wanted"), rows) if rows else ""


def _programming(times: dict[str, dict[str, Quantiles]], stopped: dict[str, str]) -> str:
    lines: dict[str, Points] = {}
    for model, by_size in times.items():
        lines[f"{model}, here"] = [(float(n), one.p50_ms / 1e3) for n, one in by_size.items()]
    for model, seconds in paper.PROGRAMMING_S.items():
        lines[f"{model}, paper"] = [(float(n), value) for n, value in seconds.items()]
    title = "Programming time by instances in the VPC"
    rows = [
        (model, f"{int(size):,}", f"{one.p50_ms:g}", f"{one.p99_ms:g}", _paper_ms(model, int(size)))
        for model, by_size in times.items()
        for size, one in by_size.items()
    ]
    return (
        f"<h2>{title} (figure 10)</h2>"
        + plot(title, ("instances", "seconds"), lines, log_y=True)
        + _table(("model", "instances", "p50 ms", "p99 ms", "paper ms"), rows)
        + "".join(f"<p>{escape(model)} {escape(why)}.</p>" for model, why in stopped.items())
    )


def _paper_ms(model: str, size: int) -> str:
    seconds = paper.PROGRAMMING_S.get(model, {}).get(size)
    return "" if seconds is None else f"{seconds * 1e3:,.0f}"


def _learning(learning: Learning, saved: float | None) -> str:
    count = len(learning.cdf)
    here = [(float(size), (n + 1) / count) for n, size in enumerate(learning.cdf)]
    ours = msgspec.to_builtins(learning.fc_entries)
    rows = [(name, f"{ours[name]:,.0f}", f"{paper.FC_ENTRIES[name]:,.0f}") for name in ours]
    rows.append(("host state saved", f"{saved or 0:.2%}", f"{paper.MEMORY_SAVED:.0%}"))
    regions = enumerate(paper.RSP_SHARES, 1)
    shares = {"here": learning.rsp_share} | {f"region {n}": share for n, share in regions}
    lines: dict[str, Points] = {"here": here, "paper": paper.FC_CDF}
    return (
        "<h2>RSP's part of the traffic (figure 11)</h2>"
        + bars("RSP's part of the traffic, here and in the paper's regions", shares)
        + "<h2>Entries of forwarding caches (figure 12)</h2>"
        + plot("Sizes of FCs", ("entries", "part of hosts"), lines, log_y=False)
        + _table(("", "here", "paper"), rows)
    )


def _faults(faults: dict[str, Fault]) -> str:
    rows = [
        (
            name,
            "not in time" if fault.converged_s is None else f"{fault.converged_s:g}",
            str(fault.lost),
            str(fault.wrong),
        )
        for name, fault in faults.items()
    ]
    heads = ("during churn", "seconds until all was right", "lost", "wrong afterwards")
    return "<h2>Faults</h2>" + _table(heads, rows)


def _facts(part: msgspec.Struct) -> str:
    values: dict[str, object] = msgspec.to_builtins(part)
    return _table(
        ("", ""),
        [(name.replace("_", " "), _value(value)) for name, value in values.items()],
    )


def _value(value: object) -> str:
    match value:
        case dict():
            return ", ".join(f"{name} {_value(one)}" for name, one in value.items())
        case None:
            return "not known"
        case int() | float():
            return f"{value:,}"
        case _:
            return str(value)


def _services(found: Results) -> str:
    rows = [
        (name, f"{use.rss_mb:g}", f"{use.peak_rss_mb:g}", f"{use.cpu:.2f}")
        for name, use in sorted(found.services.items())
    ]
    heads = ("service", "MB at the end", "MB at most", "CPUs on average")
    return "<h2>Services</h2>" + _table(heads, rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(text: str) -> str:
    marked = " class=missed" if text == "missed" else ""
    return f"<td{marked}>{escape(text)}</td>"
