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
from achelous_cli.connection import connection
from achelous_cli.failures import usage
from achelous_cli.session import session_of

_HELP: Final = """Put load on a platform and measure it (operators).

A platform of its own is started, unless --attach says otherwise: servers, controllers and gateways
as processes, and simulated hosts, which are the real agent on a packet path of memory.

The exit code is 0 only if everything could be measured.
"""

_SCENARIOS: Final = {
    "programming-time": "Time until one more instance can be reached, in VPCs of growing size.",
    "burst": "Many containers in one call, and when the last of them can be reached.",
    "churn": "Creations and deletions at a steady rate, and how late they take effect.",
    "learning": "What hosts learn when their guests talk to a few of very many.",
    "reconcile": "What it costs a host to keep what it has learned true.",
    "faults": "Parts that fail during churn, and how long until all is right again.",
    "services": "What controllers and one gateway manage alone.",
    "full": "All of it.",
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
        "--attach", help="Use the platform that --url names, or the one that runs here, and --nats."
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

        sizes = options.QUICK if quick else options.Sizes()
        if largest is not None:
            sizes = options.no_larger(sizes, largest)
        sizes = options.with_churn(sizes, rate, seconds)
        names = tuple(run.SCENARIOS) if name == "full" else (name,)
        wanted = options.Options(names, sizes, json=as_json, html=html)
        if attach:
            if nats is None:
                raise usage("--attach needs the bus: give --nats, or set ACHELOUS_NATS_URL")
            asked = session_of(context)
            api = connection(asked.url, asked.token_file, os.environ)
            wanted = replace(wanted, attach=options.Attach(api.url, api.token, nats))
        raise typer.Exit(run.main(wanted))

    return run
