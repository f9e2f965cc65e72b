"""The commands that every resource has, made from its description."""

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Final

import typer

from achelous_cli.failures import usage
from achelous_cli.fields import Field, keyword, members
from achelous_cli.output import plain, print_details, print_json, print_table
from achelous_cli.reply import Reply
from achelous_cli.resources import RESOURCES, Resource, Verb
from achelous_cli.session import Session, session_of

Json = Annotated[bool, typer.Option("--json", help="Print the API's JSON.")]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="At most as many. Left out, all.")
]
IfMatch = Annotated[
    int | None,
    typer.Option("--if-version", min=1, help="Only if the object is still at this version."),
]

Run = Callable[[Session, Resource, Mapping[str, Any]], None]


def add_commands(group: typer.Typer, resource: Resource) -> None:
    """The commands of a resource's verbs, in ``group``."""
    for verb, example in resource.examples.items():
        add_command(
            group,
            verb,
            partial(_call, _RUNS[verb], resource),
            _parameters(resource, verb),
            about=_about(resource, verb),
            example=f"{resource.command} {verb} {example}",
        )


def add_command(
    group: typer.Typer,
    name: str,
    run: Callable[..., None],
    parameters: list[inspect.Parameter],
    *,
    about: str,
    example: str,
) -> None:
    """A command that calls ``run`` with the context and the parameters by name."""

    def command(**values: Any) -> None:
        run(**values)

    context = keyword("context", typer.Context)
    signature = inspect.Signature([context, *parameters])
    command.__signature__ = signature  # type: ignore[attr-defined]  # read by typer
    command.__annotations__ = {"context": typer.Context}
    group.command(name, help=about, epilog=example_text(example))(command)


def example_text(example: str) -> str:
    """The end of a command's help."""
    return f"\b\nExample:\n  achelous {example.rstrip()}"


def argument(name: str, metavar: str, about: str) -> inspect.Parameter:
    """A positional parameter."""
    return keyword(name, Annotated[str, typer.Argument(metavar=metavar, help=about)])


def _call(run: Run, resource: Resource, context: typer.Context, **values: Any) -> None:
    run(session_of(context), resource, values)


def _about(resource: Resource, verb: Verb) -> str:
    if verb == "list":
        return f"List {resource.title}s."
    article = "an" if resource.title[0] in "aeiou" else "a"
    return f"{_HELP[verb]} {article} {resource.title}."


def _reference(resource: Resource) -> inspect.Parameter:
    if resource.name is None:
        return argument("reference", resource.metavar, "Its id.")
    also = f", or {resource.parent[0].upper()}/{resource.name.upper()}" if resource.parent else ""
    return argument("reference", resource.metavar, f"Its id or {resource.name}{also}.")


def _parameters(resource: Resource, verb: Verb) -> list[inspect.Parameter]:
    found: list[inspect.Parameter] = []
    if resource.owner is not None:
        found.append(_reference_to(RESOURCES[resource.owner]))
    match verb:
        case "create":
            if resource.name is not None:
                found.append(argument("name", "NAME", "Letters, digits, dots, - and _."))
            found += _options(resource.create, may_be_required=True)
        case "list":
            found += _options(resource.filters, may_be_required=False)
            if resource.owner is None:  # what belongs to an owner is listed whole
                found.append(keyword("limit", Limit, None))
        case "show" | "delete":
            found.append(_reference(resource))
        case "update":
            found += [_reference(resource), *_options(resource.update, may_be_required=True)]
            found.append(keyword("if_version", IfMatch, None))
    return [*found, keyword("json", Json, False)]


def _reference_to(owner: Resource) -> inspect.Parameter:
    parameter = _reference(owner)
    return parameter.replace(name="owner")


def _options(fields: tuple[Field, ...], *, may_be_required: bool) -> list[inspect.Parameter]:
    return [field.parameter(may_be_required=may_be_required) for field in fields]


def _create(session: Session, resource: Resource, values: Mapping[str, Any]) -> None:
    body = members(resource.create, values, session.resolve)
    if resource.name is not None:
        body = {"name": values["name"], **body}
    post = session.api.post_once if resource.secret else session.api.post
    reply = post(session.path(resource, values.get("owner")), body)
    show(resource, reply, as_json=values["json"])


def _list(session: Session, resource: Resource, values: Mapping[str, Any]) -> None:
    filters = members(resource.filters, values, session.resolve)
    path, limit = session.path(resource, values.get("owner")), values.get("limit")
    if values["json"]:
        print_json(session.whole_list(path, filters, limit))
        return
    rows = session.items(path, filters, limit)
    print_table(resource.columns, rows, empty=f"no {resource.title}s")


def _show(session: Session, resource: Resource, values: Mapping[str, Any]) -> None:
    reply = session.api.get(session.object_path(resource, values))
    show(resource, reply, as_json=values["json"])


def _update(session: Session, resource: Resource, values: Mapping[str, Any]) -> None:
    body = members(resource.update, values, session.resolve)
    if not body:
        flags = ", ".join(field.flag for field in resource.update)
        raise usage(f"nothing to update: give {flags}")
    path = session.object_path(resource, values)
    reply = session.api.patch(path, body, etag(values["if_version"]))
    show(resource, reply, as_json=values["json"])


def _delete(session: Session, resource: Resource, values: Mapping[str, Any]) -> None:
    session.api.delete(session.object_path(resource, values))
    if not values["json"]:
        sys.stderr.write(f"{resource.title} {plain(values['reference'])} deleted\n")


def etag(version: int | None) -> str | None:
    """The If-Match of an `IfMatch` option."""
    return None if version is None else f'"{version}"'


def show(resource: Resource, reply: Reply, *, as_json: bool) -> None:
    """Print a reply that is one object."""
    if as_json:
        print_json(reply.text)
        return
    print_details(reply.document, resource.nested)


_RUNS: Final[Mapping[Verb, Run]] = {
    "create": _create,
    "list": _list,
    "show": _show,
    "update": _update,
    "delete": _delete,
}
_HELP: Final[Mapping[str, str]] = {
    "create": "Make",
    "show": "Show",
    "update": "Change",
    "delete": "Delete",
}
