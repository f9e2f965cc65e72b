"""What a command prints: tables for people, plain and whole where no terminal reads them."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from achelous_cli.failures import Document

Format = Callable[[Any], str]

NONE: Final = "-"
_UNBOUNDED: Final = 100_000
_STYLES: Final = {
    "ACTIVE": "green",
    "active": "green",
    "yes": "green",
    "BUILDING": "yellow",
    "DELETING": "yellow",
    "waiting": "yellow",
    "ERROR": "bold red",
    "failed": "bold red",
    "no": "bold red",
}


def plain(value: Any) -> str:
    """A JSON value on one line, without characters that would move a terminal's cursor."""
    if value is None or value in ([], {}):
        return NONE
    match value:
        case bool():
            return "yes" if value else "no"
        case list():
            return ",".join(map(plain, value))
        case Mapping():
            return " ".join(f"{key}={plain(item)}" for key, item in value.items())
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. ``member``: of the row's document, with dots into nested ones."""

    header: str
    member: str
    format: Format = plain

    def cell(self, row: Document) -> str:
        value: Any = row
        for key in self.member.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return NONE if value is None else self.format(value)


Columns = tuple[Column, ...]


def columns(*members: str, **formats: Format) -> Columns:
    """Columns headed by their members' names; ``formats``: further ones that need a format."""
    named = [(member, plain) for member in members] + list(formats.items())
    return tuple(Column(_title(member).upper(), member, shown) for member, shown in named)


class ReaderGone(Exception):
    """Whoever read our standard output has seen enough, as `head` does."""


def write(text: str) -> None:
    """Write to standard output; raises `ReaderGone`."""
    try:
        sys.stdout.write(text)
    except BrokenPipeError:
        raise ReaderGone from None


def print_json(text: str) -> None:
    """The API's own text, one line end after it."""
    write(text.rstrip("\n") + "\n")


def print_table(table: Columns, rows: Iterable[Document], *, empty: str = "") -> None:
    """One line a row; ``empty`` is said on standard error when there is none."""
    cells = [[column.cell(row) for column in table] for row in rows]
    if cells:
        _print_grid([column.header for column in table], cells)
    elif empty:
        sys.stderr.write(f"{empty}\n")


def print_details(document: Document, tables: Mapping[str, Columns]) -> None:
    """One line a member; the members in ``tables`` are lists, each printed as a table below."""
    simple = [[_title(key), plain(value)] for key, value in document.items() if key not in tables]
    _print_grid(None, simple)
    for member, table in tables.items():
        if rows := document.get(member):
            print_section(_title(member))
            print_table(table, rows)


def print_section(title: str) -> None:
    """A heading, with an empty line before it."""
    write(f"\n{title}\n")
    sys.stdout.flush()  # rich does not share our buffer


def _title(member: str) -> str:
    return member.rpartition(".")[2].replace("_", " ")


def _print_grid(header: Sequence[str] | None, lines: Sequence[Sequence[str]]) -> None:
    if sys.stdout.isatty():
        _print_rich(header, lines)
    else:
        _print_aligned([header, *lines] if header else lines)


def _print_aligned(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True))
        write(padded.rstrip() + "\n")


def _print_rich(header: Sequence[str] | None, lines: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, show_header=header is not None, pad_edge=False, header_style="bold")
    for title in header or ("", ""):
        grid.add_column(title, no_wrap=True, style="" if header or grid.columns else "dim")
    for line in lines:
        grid.add_row(*(Text(text, style=_STYLES.get(text, "")) for text in line))
    # wider than the terminal if need be, which wraps lines: an id can still be copied whole
    Console(highlight=False, width=_UNBOUNDED).print(grid, crop=False)
