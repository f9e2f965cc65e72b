"""`achelous up` and `achelous demo`: the whole platform on this machine.

The lab is imported when one of them runs: the other commands start without it.
"""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from achelous_cli.failures import ExitCode, failure, usage

_MISSING = "This machine lacks what the packet path needs:"


def up(
    hosts: Annotated[int, typer.Option(min=0, max=50, help="Hosts to start.")] = 3,
    gateways: Annotated[int, typer.Option(min=0, max=16, help="Gateways to start.")] = 2,
    controllers: Annotated[int, typer.Option(min=1, max=4, help="Controllers to start.")] = 1,
    dsn: Annotated[
        str | None,
        typer.Option(help="Use this database: postgresql+asyncpg://USER:PASSWORD@HOST/NAME."),
    ] = None,
    nats: Annotated[
        str | None, typer.Option(help="Use this bus, JetStream on: nats://USER:PASSWORD@HOST:PORT.")
    ] = None,
    operator_token_file: Annotated[
        Path | None,
        typer.Option(
            help="With --dsn: the file of the operator's token; written if the database is empty."
        ),
    ] = None,
    sample: Annotated[bool, typer.Option(help="Make a sample VPC with two guests.")] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="When up, print where things are as a line of JSON.")
    ] = False,
) -> None:
    """Run a platform in namespaces of this machine until Ctrl-C or SIGTERM.

    Every instance that is placed on its hosts gets a guest: a namespace with its vNICs. Without
    root or eBPF it runs the control plane alone.
    """
    from achelous_lab.platform import External, Size
    from achelous_lab.up import Options, stay_up
    from achelous_shared.bpf import missing_for_ebpf

    _check_scheme("--dsn", dsn, "postgresql+asyncpg://")
    _check_scheme("--nats", nats, "nats://")
    if operator_token_file is not None and dsn is None:
        raise usage("--operator-token-file goes with --dsn: an embedded database starts empty")
    missing = missing_for_ebpf()
    if missing:
        typer.echo("\n  ".join([_MISSING, *missing]), err=True)
        typer.echo("Starting the control plane alone: API, database and bus work.", err=True)
    size = Size(hosts, gateways, controllers, dataplane=not missing)
    raise typer.Exit(
        _run(stay_up(Options(size, External(dsn, nats, operator_token_file), sample, as_json)))
    )


def demo(
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Start a platform, show on it what Achelous does, with figures, and clean up.

    The exit code is 0 only if everything that it shows held.
    """
    from achelous_lab.tour.guide import give_tour
    from achelous_shared.bpf import missing_for_ebpf

    if missing := missing_for_ebpf():
        typer.echo("\n  ".join([_MISSING, *missing]), err=True)
        typer.echo("`achelous up` runs the control plane without it.", err=True)
        raise typer.Exit(1)
    raise typer.Exit(_run(give_tour(as_json=as_json)))


def _run(platform: Coroutine[Any, Any, int]) -> int:
    from achelous_lab.api import ApiRefused
    from achelous_lab.process import ProcessFailed

    try:
        return asyncio.run(platform)
    except (ProcessFailed, ApiRefused, TimeoutError, OSError, ValueError) as error:
        raise failure(
            ExitCode.UNREACHABLE, "The platform did not start or broke", str(error)
        ) from error


def _check_scheme(option: str, value: str | None, scheme: str) -> None:
    if value is not None and not value.startswith(scheme):
        raise usage(f"{option} {value.partition('://')[0]}...: it has to start with {scheme}")
