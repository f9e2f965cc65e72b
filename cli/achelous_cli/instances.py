"""What instances have beside the commands of every resource: vNICs, batches, moves, waiting."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from achelous_cli.commands import IfMatch, Json, etag, example_text, show
from achelous_cli.failures import usage
from achelous_cli.instance_specs import batch_of, parse_nic, with_ids
from achelous_cli.output import plain, print_json, print_table
from achelous_cli.resources import RESOURCES
from achelous_cli.session import session_of
from achelous_cli.waiting import until_active, until_gone

_INSTANCES: Final = "/v1/instances"
_RESOURCE: Final = RESOURCES["instance"]

Timeout = Annotated[float, typer.Option("--timeout", min=0, help="Of --wait, in seconds.")]


def add_commands(group: typer.Typer) -> None:
    """create, create-batch, move and delete, in ``group``."""
    nic = "--nic subnet=prod/web,ip=10.0.1.7,group=web --nic subnet=prod/db"
    for name, command, example in (
        ("create", _create, f"instance create web-1 --kind vm {nic} --wait"),
        ("create-batch", _create_batch, "instance create-batch instances.json"),
        ("move", _move, "instance move web-1 h2 --wait"),
        ("delete", _delete, "instance delete web-1 --wait"),
    ):
        group.command(name, epilog=example_text(example))(command)


def _create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, dots, - and _.")],
    nic: Annotated[
        list[str],
        typer.Option(
            "--nic",
            metavar="subnet=SUBNET[,ip=ADDRESS][,ip6=ADDRESS][,group=GROUP]...",
            help="A vNIC; repeat for several. Without ip or ip6 a free address is chosen,"
            " without group the VPC's default group.",
        ),
    ],
    kind: Annotated[
        Literal["vm", "bare_metal", "container"] | None,
        typer.Option("--kind", help="Left out, a vm."),
    ] = None,
    project: Annotated[
        str | None, typer.Option("--project", metavar="PROJECT", help="Left out, the subnets' own.")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="HOST", help="Left out, one is chosen (operators only)."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it is ACTIVE.")] = False,
    timeout: Timeout = 60.0,
    as_json: Json = False,
) -> None:
    """Make an instance."""
    given = {"kind": kind, "project_id": project, "host_id": host}
    wanted: dict[str, Any] = {"name": name, "vnics": [_nic(text) for text in nic]}
    wanted |= {member: value for member, value in given.items() if value is not None}
    session = session_of(context)
    reply = session.api.post(_INSTANCES, with_ids(session, wanted))
    if wait:
        reply = until_active(session, reply.document, timeout)
    show(_RESOURCE, reply, as_json=as_json)


def _nic(text: str) -> dict[str, Any]:
    try:
        return parse_nic(text)
    except ValueError as error:
        raise usage(f"--nic {plain(text)}: {error}") from error


def _create_batch(
    context: typer.Context,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="JSON, as below; - reads standard input.")
    ],
    as_json: Json = False,
) -> None:
    """Make up to 20,000 instances, all of them or none.

    FILE holds a list of instances as the API takes them, with names in place of ids if wanted:
    [{"name": "web-1", "vnics": [{"subnet_id": "prod/web", "security_group_ids": ["web"]}]}, ...]
    """
    session = session_of(context)
    instances = [with_ids(session, instance) for instance in batch_of(_content(file))]
    reply = session.api.post(f"{_INSTANCES}:batch", {"instances": instances})
    if as_json:
        print_json(reply.text)
        return
    print_table(_RESOURCE.columns, reply.document["instances"], empty="no instances")


def _content(file: str) -> Any:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
        return json.loads(text)
    except OSError as error:
        raise usage(f"{plain(file)} can not be read: {error.strerror}") from error
    except ValueError as error:  # no JSON, or no UTF-8
        raise usage(f"{plain(file)} is no JSON: {error}") from error


def _move(
    context: typer.Context,
    reference: Annotated[
        str, typer.Argument(metavar="INSTANCE", help="Its id or name, or PROJECT/NAME.")
    ],
    host: Annotated[str, typer.Argument(metavar="HOST", help="The new host's id or name.")],
    wait: Annotated[bool, typer.Option("--wait", help="Until it is ACTIVE there.")] = False,
    timeout: Timeout = 60.0,
    if_version: IfMatch = None,
    as_json: Json = False,
) -> None:
    """Give an instance another host, where it starts anew (operators only)."""
    session = session_of(context)
    path = f"{_INSTANCES}/{session.resolve('instance', reference)}"
    body = {"host_id": session.resolve("host", host)}
    reply = session.api.patch(path, body, etag(if_version))
    if wait:
        reply = until_active(session, reply.document, timeout)
    show(_RESOURCE, reply, as_json=as_json)


def _delete(
    context: typer.Context,
    reference: Annotated[
        str, typer.Argument(metavar="INSTANCE", help="Its id or name, or PROJECT/NAME.")
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Until it is gone.")] = False,
    timeout: Timeout = 60.0,
    as_json: Json = False,
) -> None:
    """Delete an instance."""
    session = session_of(context)
    instance = {"id": session.resolve("instance", reference), "name": reference}
    reply = session.api.delete(f"{_INSTANCES}/{instance['id']}")
    if wait:
        until_gone(session, instance, timeout)
    if as_json:
        print_json(reply.text)
    else:
        done = "deleted" if wait else "is being deleted"
        sys.stderr.write(f"instance {plain(reference)} {done}\n")
