"""`project usage`: what a project has, beside what it may have."""

from typing import Annotated, Final

import typer

from achelous_cli.commands import Json
from achelous_cli.output import columns, print_json, print_table
from achelous_cli.resources import RESOURCES
from achelous_cli.session import session_of

_TABLE: Final = columns("resource", "used", "quota")


def usage(
    context: typer.Context,
    reference: Annotated[str, typer.Argument(metavar="PROJECT", help="Its id or name.")],
    as_json: Json = False,
) -> None:
    """Show what a project has of each resource, and its quota."""
    session = session_of(context)
    path = session.object_path(RESOURCES["project"], {"reference": reference})
    reply = session.api.get(f"{path}/usage")
    if as_json:
        print_json(reply.text)
        return
    found = reply.document
    rows = [
        {"resource": name, "used": found["used"].get(name, 0), "quota": quota}
        for name, quota in found["quotas"].items()
    ]
    print_table(_TABLE, rows)
