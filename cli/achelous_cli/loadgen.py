"""`achelous loadgen`: load on a platform, and what came of it.

The load generator is imported when it runs: the other commands start without it.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer

from achelous_cli.commands import example_text
from achelous_cli.connection import checked_nats, connection, nats_of_current
from achelous_cli.failures import usage
from achelous_cli.session import session_of

_HELP: Final = """Put load on a platform and measure it (operators).

A platform of its own is started, unless --attach says otherwise: servers, controllers and gateways
as processes, and simulated hosts, which are the real agent on a packet path of memory.

With --attach nothing is broken: full then leaves out faults.

Exit codes: 0 if all could be measured, 1 if something could not, 2 for wrong options, 130 and 143
if SIGINT (Ctrl-C) or SIGTERM cut it short. But for 2, the figures of all scenarios that ended are
written. Targets that were missed do not change it: the report says which.
"""

_SCENARIOS: Final = {
    "programming-time": "Time until one more instance can be reached, in VPCs of growing size.",
    "burst": "Many containers in one call, and when the last of them can be reached.",
    "churn": "Creations, deletions and moves at a steady rate, and how late they take effect.",
    "learning": "What hosts learn when their guests talk to a few of very many.",
    "reconcile": "What it costs a host to keep what it has learned true.",
    "faults": "Parts that fail during churn, and how long until all is right again.",
    "services": "What controllers and one gateway manage alone.",
    "full": "All of it, within 20 minutes on 2 cores and 20 GB.",
}
"""Command and its help."""

Quick = Annotated[bool, typer.Option("--quick", help="Small sizes: done within two minutes.")]
Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here.")
]
Html = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write a report with plots here.")
]
Attach = Annotated[
    bool,
    typer.Option(
        "--attach",
        help="Use a platform that runs: the one of `achelous up`, or that of --url and --nats."
        " Simulated hosts join it, and may be given instances of others, until the end.",
    ),
]
Nats = Annotated[
    str | None,
    typer.Option(
        envvar="ACHELOUS_NATS_URL",
        help="With --attach: its bus, as a user who may do what all roles may.",
    ),
]
Largest = Annotated[
    int | None, typer.Option(min=10, metavar="N", help="No VPC of more than N instances.")
]
Rate = Annotated[
    float | None, typer.Option(min=0.1, metavar="N", help="Changes a second of churn.")
]
Seconds = Annotated[float | None, typer.Option(min=1.0, metavar="S", help="How long churn lasts.")]


def group() -> typer.Typer:
    """The commands, one for each scenario."""
    app = typer.Typer(help=_HELP, no_args_is_help=True, rich_markup_mode=None)
    for name, text in _SCENARIOS.items():
        example = example_text(f"loadgen {name} --quick --json {name}.json")
        app.command(name, help=text, epilog=example)(_command(name))
    return app


def _command(name: str) -> Callable[..., None]:
    def run(
        context: typer.Context,
        quick: Quick = False,
        as_json: Json = None,
        html: Html = None,
        largest: Largest = None,
        rate: Rate = None,
        seconds: Seconds = None,
        attach: Attach = False,
        nats: Nats = None,
    ) -> None:
        from achelous_loadgen import options, run

        _check_files(as_json, html)
        sizes = options.QUICK if quick else options.Sizes()
        if largest is not None:
            sizes = options.no_larger(sizes, largest)
        sizes = options.with_churn(sizes, rate, seconds)
        names = _scenarios(name, tuple(run.SCENARIOS), attach=attach)
        wanted = options.Options(names, sizes, json=as_json, html=html)
        if attach:
            asked = session_of(context)
            api = connection(asked.url, asked.token_file, os.environ)
            bus = checked_nats(nats) if nats else nats_of_current(api)
            wanted = replace(wanted, attach=options.Attach(api.url, api.token, bus))
        raise typer.Exit(run.main(wanted))

    return run


def _scenarios(name: str, known: tuple[str, ...], *, attach: bool) -> tuple[str, ...]:
    """Nobody else's platform is broken: faults are for one that the run has started."""
    if name == "full":
        return tuple(one for one in known if not attach or one != "faults")
    if name == "faults" and attach:
        raise usage("faults break a platform: they are for one of their own, without --attach")
    return ("programming-time", "ahead") if name == "programming-time" else (name,)


def _check_files(*files: Path | None) -> None:
    """A run is long: what could not be written in the end is refused before it."""
    for file in files:
        if file is None:
            continue
        if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
            raise usage(f"{file} cannot be written: name a file in a folder that is yours")
