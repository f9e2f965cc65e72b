"""`achelous drops` and `achelous flows`: what packets meet, as it happens."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Final

import typer

from achelous_cli.commands import Json
from achelous_cli.failures import Document, usage
from achelous_cli.output import Column, columns, print_json, print_section, print_table, write
from achelous_cli.resources import RESOURCES
from achelous_cli.session import Session, session_of
from achelous_cli.units import both_counts, both_rates, clock, seconds

_EVERY_S: Final = 0.5
_PAGE: Final = 1000

_SAMPLES: Final = columns("host", at=clock) + columns(
    "reason", "direction", "length", "summary", "vnic_id", "rule"
)
_COUNTS: Final = columns("host", "reason", "packets")
_FLOWS: Final = (
    *columns(bits_per_s=both_rates, packets_per_s=both_counts),
    *columns("session.protocol", "session.source", "session.destination", "session.state"),
    *columns("session.vni"),
    Column("AGE", "session.age_s", seconds),
)


def drops(
    context: typer.Context,
    host: Annotated[
        str | None, typer.Argument(metavar="HOST", help="Its id or name. Left out, all hosts.")
    ] = None,
    vnic: Annotated[str | None, typer.Option("--vnic", help="Only this vNIC's: its id.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new ones until Ctrl-C.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=_PAGE, help="At most as many samples of each host.")
    ] = 20,
    as_json: Json = False,
) -> None:
    """Show dropped packets: counts by reason, and samples with their headers (operators).

    Every drop is counted; a sample of them is kept with its headers and, where a security group
    decided, its rule. With --json one line a host, with --follow one a sample.
    """
    session = session_of(context)
    watched = list(_watched(session, host, vnic))
    for each in watched:
        each.ask(session, limit)
    if follow:
        _follow(session, watched, as_json)
    elif as_json:
        for each in watched:
            print_json(json.dumps({"host": each.name, **each.reply}, separators=(",", ":")))
    else:
        _print_drops(watched)


@dataclass(slots=True)
class _Watched:
    """A host whose drops are looked at. ``reply``: its last answer."""

    name: str
    host_id: str
    vnic_id: str | None
    reply: Document = field(default_factory=dict)

    def ask(self, session: Session, limit: int, after: int | None = None) -> None:
        params = {"limit": str(limit)}
        if after is not None:
            params["after"] = str(after)
        if self.vnic_id is not None:
            params["vnic_id"] = self.vnic_id
        self.reply = session.api.get(f"/v1/hosts/{self.host_id}/drops", params).document

    def samples(self) -> list[Document]:
        return [{"host": self.name, **sample} for sample in self.reply["samples"]]


def _watched(session: Session, host: str | None, vnic: str | None) -> Iterator[_Watched]:
    if vnic is not None:
        if host is not None:
            raise usage("give HOST or --vnic: a vNIC has just one host")
        vnic_id = session.resolve("vnic", vnic)
        instance_id = session.api.get(f"/v1/vnics/{vnic_id}").document["instance_id"]
        host = session.api.get(f"/v1/instances/{instance_id}").document["host_id"]
    else:
        vnic_id = None
    if host is None:
        for found in session.items("/v1/hosts", {}, None):
            yield _Watched(found["name"], found["id"], None)
        return
    found = session.api.get(session.object_path(RESOURCES["host"], {"reference": host})).document
    yield _Watched(found["name"], found["id"], vnic_id)


def _print_drops(watched: list[_Watched]) -> None:
    counts = [
        {"host": each.name, "reason": reason, "packets": packets}
        for each in watched
        for reason, packets in each.reply["counts"].items()
    ]
    print_section(f"Drops: {sum(row['packets'] for row in counts) or 'none'}")
    print_table(_COUNTS, counts)
    lost = sum(each.reply["lost"] for each in watched)
    print_section(f"Samples, the latest ({lost} drops were counted without one)")
    print_table(_SAMPLES, [sample for each in watched for sample in each.samples()])


def _follow(session: Session, watched: list[_Watched], as_json: bool) -> None:
    while True:
        for each in watched:
            for sample in each.samples():
                if as_json:
                    print_json(json.dumps(sample, separators=(",", ":")))
                else:
                    write("  ".join(column.cell(sample) for column in _SAMPLES) + "\n")
            if each.reply["missed"]:
                typer.echo(f"{each.name}: {each.reply['missed']} samples came too fast", err=True)
        typer.get_text_stream("stdout").flush()
        if not any(each.reply["more"] for each in watched):
            time.sleep(_EVERY_S)
        for each in watched:
            each.ask(session, _PAGE, each.reply["next"])


def flows(
    context: typer.Context,
    host: Annotated[str, typer.Argument(metavar="HOST", help="Its id or name.")],
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="The top so many.")] = 20,
    duration: Annotated[
        float, typer.Option("--seconds", min=0.1, max=10, help="So long they are watched.")
    ] = 1.0,
    as_json: Json = False,
) -> None:
    """Show the sessions of a host that move most, with their rates (operators).

    Rates and counts are of both directions: what the initiator sends, and what it is sent.
    """
    session = session_of(context)
    path = session.object_path(RESOURCES["host"], {"reference": host})
    params = {"limit": str(limit), "seconds": str(duration)}
    reply = session.api.get(f"{path}/flows", params)
    if as_json:
        print_json(reply.text)
        return
    found = reply.document
    print_section(f"Top {len(found['flows'])} of {found['total']}, over {found['seconds']:.1f} s")
    print_table(_FLOWS, found["flows"])
