"""Options of commands that become members of a request, described as data."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from achelous_cli.failures import usage

REQUIRED: Final = inspect.Parameter.empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One option and the member of the request that it sets.

    ``kind``: the annotation that typer parses by, of one value where ``many``; of a bool the flag
    is ``--yes/--no``. ``refers``: the key
    of the resource that it names, by id or name; the member gets the id. ``parse`` turns the text
    into the member's value; its ValueError is wrong usage. ``collect`` makes one value of ``many``.
    """

    flag: str
    member: str
    help: str
    kind: Any = str
    metavar: str | None = None
    required: bool = False
    many: bool = False
    refers: str | None = None
    parse: Callable[[Any], Any] | None = None
    collect: Callable[[Iterable[Any]], Any] = list

    @property
    def name(self) -> str:
        """The parameter's name in Python."""
        return "field_" + self.flag.partition("/")[0].strip("-").replace("-", "_")

    def parameter(self, *, may_be_required: bool) -> inspect.Parameter:
        """As typer reads it; without ``may_be_required`` it can be left out."""
        option = typer.Option(self.flag, help=self.help, metavar=self.metavar, show_default=False)
        kind = list[self.kind] if self.many else self.kind  # type: ignore[name-defined]
        if self.required and may_be_required:
            return keyword(self.name, Annotated[kind, option])
        return keyword(self.name, Annotated[kind | None, option], None)


def keyword(name: str, annotation: Any, default: Any = REQUIRED) -> inspect.Parameter:
    """A parameter of a command."""
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, annotation=annotation, default=default)


def members(
    fields: Sequence[Field], values: Mapping[str, Any], resolve: Callable[[str, str], str]
) -> dict[str, Any]:
    """The members that the given options set; ``resolve(resource, reference)`` finds ids."""
    return {
        field.member: _value(field, values[field.name], resolve)
        for field in fields
        if values.get(field.name) not in (None, [])
    }


def _value(field: Field, given: Any, resolve: Callable[[str, str], str]) -> Any:
    if field.many:
        return field.collect(_single(field, item, resolve) for item in given)
    return _single(field, given, resolve)


def _single(field: Field, given: Any, resolve: Callable[[str, str], str]) -> Any:
    if field.refers is not None:
        return resolve(field.refers, given)
    if field.parse is None:
        return given
    try:
        return field.parse(given)
    except ValueError as error:
        raise usage(f"{field.flag} {given}: {error}") from error
