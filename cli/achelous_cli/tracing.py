"""`achelous trace`: what a packet would meet on its way, and why."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from achelous_cli import packets
from achelous_cli.commands import Json
from achelous_cli.failures import Document, ExitCode, usage
from achelous_cli.output import Column, print_json, print_section, print_table, write
from achelous_cli.packets import NoPacket
from achelous_cli.session import Session, session_of
from achelous_cli.units import seconds

EXAMPLE: Final = "trace h1/prod/10.0.0.5 'tcp 10.0.0.5:4321 > 10.0.1.9:443'"
_STEPS: Final = (
    Column("STEP", "action"),
    Column("TABLE", "table"),
    Column("KEY", "key"),
    Column("GENERATION", "generation"),
    Column("AGE", "age_s", seconds),
    Column("IDLE", "idle_s", seconds),
    Column("ENTRY", "entry"),
)
_OUTCOMES: Final[Mapping[str, str]] = {
    "delivered": "delivered to vNIC {to_vnic}",
    "answered": "answered by {name}, in place of the receiver",
    "absorbed": "dealt with by {name}: nothing is sent",
    "dropped": "dropped by {name}: {reason}: {words}",
    "refused": "dropped by {name}, which tells the sender: {reason}: {words}",
    "passed": "passed to the kernel of {name}: no packet between guests",
    "lost": "lost: {words}",
    "unknown": "not known: {words}",
}


def trace(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="[HOST/]VNIC", help="Whose guest sends: an id, ADDRESS or VPC/ADDRESS."
        ),
    ],
    packet: Annotated[
        str | None,
        typer.Argument(
            metavar="PACKET", help="tcp, udp or icmp ADDRESS[:PORT] > ADDRESS[:PORT]; [IPv6]:PORT."
        ),
    ] = None,
    flags: Annotated[
        str, typer.Option("--flags", help="Of TCP: letters of FSRPAUEC, as in S, SA, A.")
    ] = "S",
    ttl: Annotated[int, typer.Option("--ttl", min=0, max=255, help="Or hop limit.")] = 64,
    size: Annotated[
        int | None, typer.Option("--size", min=1, help="Of the IP packet, in bytes.")
    ] = None,
    pcap: Annotated[
        Path | None,
        typer.Option("--pcap", help="Take the frame from this capture in place of PACKET."),
    ] = None,
    number: Annotated[int, typer.Option("--number", min=1, help="Which frame of the capture.")] = 1,
    as_json: Json = False,
) -> None:
    """Show what a packet would meet now, hop by hop and step by step (operators).

    It runs through the real programs and the live tables of each host and gateway on its way,
    which notice nothing of it. Shown are the entries that it finds with their age and generation,
    the rules that decide, and the verdict. icmp is an echo request. The exit code is 0 if the
    packet reaches its receiver or who answers in its place, 5 if it does not, 4 if that is not
    known.
    """
    if (packet is None) == (pcap is None):
        raise usage(f"give a PACKET or --pcap FILE, one of them; PACKET is {packets.FORM}")
    try:
        captured = packets.frame_in(pcap, number) if pcap is not None else b""
        written = _Written(packet, flags, ttl, size) if packet is not None else None
    except NoPacket as error:
        raise usage(str(error)) from error
    session = session_of(context)
    host, vnic = _ends(session, target)
    frame = captured if written is None else written.sent_by(vnic["mac"])
    body = {"vnic_id": vnic["id"], "frame": base64.b64encode(frame).decode()}
    reply = session.api.post(f"/v1/hosts/{host}/trace", body)
    if as_json:
        print_json(reply.text)
    else:
        _print(reply.document)
    if not reply.document["accepted"]:
        unknown = reply.document["outcome"] == "unknown"
        raise typer.Exit(ExitCode.UNREACHABLE if unknown else ExitCode.DROPPED)


class _Written:
    """A packet that was given as text: checked before anybody is asked, finished afterwards."""

    def __init__(self, text: str, flags: str, ttl: int, size: int | None) -> None:
        """Raises `NoPacket`."""
        self._flow = packets.parse_flow(text)
        self._shape = packets.Shape(packets.parse_flags(flags), ttl, size)
        packets.frame_of(self._flow, bytes(6), self._shape)

    def sent_by(self, mac: str) -> bytes:
        """The frame of the guest that has this MAC."""
        return packets.frame_of(self._flow, bytes.fromhex(mac.replace(":", "")), self._shape)


def _ends(session: Session, target: str) -> tuple[str, Document]:
    """The host's id, and the vNIC."""
    host, _, vnic = target.partition("/") if "/" in target else ("", "", target)
    found = session.api.get(f"/v1/vnics/{session.resolve('vnic', vnic)}").document
    if host:
        return session.resolve("host", host), found
    instance = session.api.get(f"/v1/instances/{found['instance_id']}").document
    return instance["host_id"], found


def _print(found: Document) -> None:
    hops = found["hops"]
    for hop in hops:
        print_section(f"{hop['kind']} {hop['name']}: {hop['arrived']}")
        print_table(_STEPS, [_row(step) for step in hop["steps"]])
        write(f"verdict: {_said(hop)}\n")
    print_section(_outcome(found, hops[-1]))


def _row(step: Document) -> dict[str, Any]:
    """What a rule or a redirect says stands where a table's entry does."""
    row = dict(step)
    if step["action"] == "rule":
        group = f", of group {step['group_name']}" if step["group_name"] else ""
        rule = f" (rule {step['rule']}{group})" if step["rule"] else ""
        row["entry"] = step["text"] + rule
    elif step["action"] == "send":
        row["entry"] = step["text"]
    elif step["action"] == "look up" and not step["found"]:
        row["entry"] = "none"
    return row


def _said(hop: Document) -> str:
    to = hop["to_vnic"] or hop["to_vtep"]
    words = [hop["verdict"], *([f"to {to}"] if to else [])]
    if hop["reason"]:
        words.append(f"({hop['reason']}: {hop['words']})")
    if hop["summary"]:
        words.append(f"as {hop['summary']}")
    return " ".join(words)


def _outcome(found: Document, last: Document) -> str:
    form = _OUTCOMES[found["outcome"]]
    text = form.format(**{**found, "name": f"{last['kind']} {last['name']}"})
    return text[0].upper() + text[1:]
