"""`achelous status`: how the platform is doing."""

from typing import Final

import typer

from achelous_cli.commands import Json
from achelous_cli.failures import Document, ExitCode
from achelous_cli.output import (
    columns,
    plain,
    print_details,
    print_json,
    print_section,
    print_table,
)
from achelous_cli.session import session_of
from achelous_cli.units import seconds

_GATEWAYS: Final = columns("name", "live", "serving", "vpcs", report_age_s=seconds)
_HOSTS: Final = columns("name", "live", "applied_revision", "revision") + columns(
    "waiting", "failed", "unheld", report_age_s=seconds
)


def status(context: typer.Context, as_json: Json = False) -> None:
    """Show whether all is well (operators).

    Checks, counts of objects, gateways and hosts with what they have applied. The exit code is 4
    if a check fails: database, bus or leader.
    """
    reply = session_of(context).api.get("/v1/status")
    found = reply.document
    if as_json:
        print_json(reply.text)
    else:
        _print(found)
    if any(answer != "ok" for answer in found["checks"].values()):
        raise typer.Exit(ExitCode.UNREACHABLE)


def _print(found: Document) -> None:
    print_details({f"check {name}": answer for name, answer in found["checks"].items()}, {})
    print_section("Objects")
    states = {f"instances {state}": count for state, count in found["instances"].items()}
    print_details({**found["objects"], **states}, {})
    fleet = found["fleet"]
    for title, member, table in (("Gateways", "gateways", _GATEWAYS), ("Hosts", "hosts", _HOSTS)):
        rows = fleet[member] if fleet else []
        print_section(f"{title}: {plain(len(rows) if fleet else 'not known without the bus')}")
        print_table(table, rows)
