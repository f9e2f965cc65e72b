"""`host show` and `gateway show`: an object, and what its data plane holds at this moment."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from achelous_cli.commands import Json, example_text
from achelous_cli.failures import Document
from achelous_cli.output import (
    Columns,
    columns,
    print_details,
    print_json,
    print_section,
    print_table,
)
from achelous_cli.resources import RESOURCES
from achelous_cli.session import session_of
from achelous_cli.units import both, both_volumes, micros, millis, percent, seconds, volume

Rows = Annotated[
    int, typer.Option("--limit", min=1, max=10_000, help="At most as many rows of each table.")
]
NoTables = Annotated[bool, typer.Option("--no-tables", help="Only what is registered of it.")]


_DROPS: Final = columns("reason", "packets")


@dataclass(frozen=True, slots=True)
class Section:
    """A list in a show document. ``total``: the member that counts rows beyond the limit."""

    title: str
    member: str
    table: Columns
    total: str | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """The show document of a resource: its path under the object, its lists, its other members."""

    noun: str
    path: str
    sections: tuple[Section, ...]
    figures: tuple[str, ...]


VSWITCH: Final = Shown(
    "host",
    "vswitch",
    (
        Section(
            "Ports",
            "ports",
            columns("device", "state", "vni", "ip", "ip6", "mac", "rules_in", "rules_out")
            + columns("tx_packets", "rx_packets", tx_bytes=volume, rx_bytes=volume)
            + columns("local", "direct", "relayed", "drops"),
        ),
        Section(
            "Forwarding cache",
            "fc",
            columns("vni", "ip", "vtep", "mac", "generation", "revision")
            + columns(age_ms=millis, idle_ms=millis),
            "fc_total",
        ),
        Section(
            "Sessions",
            "sessions",
            columns("vni", "protocol", "source", "destination", "state")
            + columns(packets=both, bytes=both_volumes, age_s=seconds, idle_s=seconds),
            "sessions_total",
        ),
        Section(
            "Preprogrammed VPCs",
            "preprogrammed",
            columns("vni", "revision", "routes", "whole"),
        ),
        Section(
            "Gateways",
            "gateways",
            columns("name", "vtep", "live", share=percent, rtt_us=micros),
        ),
    ),
    ("revision",),
)  # fmt: skip

GATEWAY: Final = Shown(
    "gateway",
    "tables",
    (Section("VPCs", "vpcs", columns("vni", "revision", "routes"), "vpcs_total"),),
    (
        "serving", "routes_total", "relayed_packets", "relayed_bytes",
        "probes", "rsp_requests", "rsp_entries",
    ),
)  # fmt: skip


def add_command(group: typer.Typer, shown: Shown) -> None:
    """The command `show`, in ``group``."""
    noun = shown.noun
    example = f"{noun} show {noun[0]}1"
    group.command("show", help=_HELP[noun], epilog=example_text(example))(_command(shown))


_HELP: Final = {
    "host": "Show a host with its ports, forwarding cache, sessions, gateways and drops."
    " --json prints the vSwitch's tables, with --no-tables the host as it is registered.",
    "gateway": "Show a gateway with its VPCs, counters and drops. --json prints the gateway's"
    " tables, with --no-tables the gateway as it is registered.",
}


def _command(shown: Shown) -> Callable[..., None]:
    resource = RESOURCES[shown.noun]

    def command(
        context: typer.Context,
        reference: Annotated[str, typer.Argument(metavar=resource.metavar, help="Its id or name.")],
        limit: Rows = 1000,
        no_tables: NoTables = False,
        as_json: Json = False,
    ) -> None:
        session = session_of(context)
        path = session.object_path(resource, {"reference": reference})
        if no_tables or not as_json:
            reply = session.api.get(path)
            if as_json:
                print_json(reply.text)
            else:
                print_details(reply.document, {})
        if no_tables:
            return
        reply = session.api.get(f"{path}/{shown.path}", {"limit": str(limit)})
        if as_json:
            print_json(reply.text)
        else:
            _print(shown, reply.document)

    return command


def _print(shown: Shown, tables: Document) -> None:
    for section in shown.sections:
        rows = tables[section.member]
        total = tables[section.total] if section.total else len(rows)
        count = f"{len(rows)} of {total}" if total > len(rows) else str(len(rows))
        print_section(f"{section.title}: {count}")
        print_table(section.table, rows)
    print_section("Figures")
    print_details({name: tables[name] for name in shown.figures}, {})
    drops = [{"reason": reason, "packets": count} for reason, count in tables["drops"].items()]
    print_section(f"Drops: {len(drops) or 'none'}")
    print_table(_DROPS, drops)
