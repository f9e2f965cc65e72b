"""The `achelous` command."""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from achelous_cli import instances, loadgen, platform, tables, tracing, watching
from achelous_cli.commands import add_commands, example_text
from achelous_cli.failures import ExitCode, Failure
from achelous_cli.failures import usage as usage_failure
from achelous_cli.output import ReaderGone, write
from achelous_cli.quotas import usage
from achelous_cli.resources import RESOURCES
from achelous_cli.session import Session
from achelous_cli.status import status

_HELP = """Run and look into an Achelous cloud network.

Wherever an id is asked for, a name does as well, if it names one object; VPC/NAME and PROJECT/NAME
narrow it down.

\b
API:    --url, else ACHELOUS_URL, else the platform that `achelous up`
        runs on this machine
Token:  --token-file, else ACHELOUS_TOKEN, else the file
        ACHELOUS_TOKEN_FILE, else that platform's
"""
_EXIT_CODES = """\b
Exit codes:
  0    done
  1    the API refused (4xx), or an instance ended in ERROR
  2    wrong usage, or a name that fits several objects
  3    not found
  4    the API can not be reached or failed (5xx), --wait took too long,
       or `status` found something wrong
  5    `trace`: the packet would not reach its receiver
  130  interrupted
"""


def build() -> typer.Typer:
    """The command with all its subcommands."""
    app = typer.Typer(
        name="achelous", help=_HELP, epilog=_EXIT_CODES, no_args_is_help=True, rich_markup_mode=None
    )
    app.callback()(_connect)
    groups = {}
    for resource in RESOURCES.values():
        group = typer.Typer(help=resource.help, no_args_is_help=True, rich_markup_mode=None)
        _add_special(group, resource.noun)
        add_commands(group, resource)
        groups[resource.noun] = group
        parent = groups[resource.owner] if resource.owner else app
        parent.add_typer(group, name=resource.noun)
    app.command("status", epilog=example_text("status"))(status)
    app.command("drops", epilog=example_text("drops h1 --follow"))(watching.drops)
    app.command("flows", epilog=example_text("flows h1"))(watching.flows)
    app.command("trace", epilog=example_text(tracing.EXAMPLE))(tracing.trace)
    app.command("up", epilog=example_text("up --hosts 4 --gateways 2"))(platform.up)
    app.command("demo", epilog=example_text("demo"))(platform.demo)
    app.add_typer(loadgen.group(), name="loadgen")
    app.command("version")(_version)
    return app


def _add_special(group: typer.Typer, noun: str) -> None:
    match noun:
        case "project":
            group.command("usage", epilog=example_text("project usage acme"))(usage)
        case "host":
            tables.add_command(group, tables.VSWITCH)
        case "gateway":
            tables.add_command(group, tables.GATEWAY)
        case "instance":
            instances.add_commands(group)


def _connect(
    context: typer.Context,
    url: Annotated[str | None, typer.Option("--url", help="The API, as in https://HOST.")] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="File that holds the bearer token.")
    ] = None,
) -> None:
    closing = ExitStack()
    context.call_on_close(closing.close)
    context.obj = Session(url, token_file, closing)


def _version(
    as_json: Annotated[bool, typer.Option("--json", help="Print the version as JSON.")] = False,
) -> None:
    """Say which version this is."""
    from importlib.metadata import version as version_of

    version = version_of("achelous-cli")
    write(json.dumps({"version": version}) + "\n" if as_json else f"achelous {version}\n")


def main() -> None:
    """Run the command line and exit with its code."""
    # httpx imports the libraries of a command of its own if it can: two thirds of its start
    sys.modules["httpx._main"] = None  # type: ignore[assignment]
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Run one command line; its exit code."""
    try:
        code = build()(args, prog_name="achelous", standalone_mode=False)
        sys.stdout.flush()
    except Failure as error:
        return _report(error, args)
    except typer.TyperException as error:
        return _report_usage(error, args)
    except (ReaderGone, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's last flush
        return ExitCode.OK
    return code or ExitCode.OK  # of typer.Exit, which is also how an interrupt arrives here


def _report(error: Failure, args: Sequence[str]) -> int:
    as_json = "--json" in args
    text = json.dumps(error.problem, separators=(",", ":")) if as_json else str(error)
    sys.stderr.write(f"{text}\n")
    return error.code


def _report_usage(error: typer.TyperException, args: Sequence[str]) -> int:
    """What typer found wrong in the command line."""
    if "--json" in args:
        return _report(usage_failure(error.format_message()), args)
    error.show()  # type: ignore[attr-defined]  # of click, which typer carries under other names
    return ExitCode.USAGE
