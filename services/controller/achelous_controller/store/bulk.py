"""Rows by the thousand, from columns: COPY takes half the time of INSERT, or a few by arrays."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from itertools import chain, count
from typing import Any, Final

import asyncpg
import numpy as np
import numpy.typing as npt
from sqlalchemy import DateTime, Integer, Table, Text, Uuid
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

from achelous_controller.store.database import driver_of

_COPY_FROM: Final = 500
"""Rows. COPY takes three messages there and back, which fewer rows do not repay."""

_STATEMENTS: Final = 256
"""Of parts, whose texts are kept."""

_CHUNK: Final = 256 * 1024
"""Bytes of a message of COPY: the server works on one while the next is written."""

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_UUID_DIGITS: Final = 32

_DIALECT: Final = postgresql.dialect()  # type: ignore[no-untyped-call]

Fixed = npt.NDArray[Any]
"""Values of one size, big-endian as PostgreSQL sends them: shape (n,), or (n, bytes) of uint8."""

Varying = Sequence[bytes | None]
"""Values of different sizes, or NULL."""


@dataclass(frozen=True, slots=True)
class Rows:
    """New rows of a table, at least one, by columns: first those of ``fixed``."""

    table: Table
    fixed: Mapping[str, Fixed]
    varying: Mapping[str, Varying]

    def __len__(self) -> int:
        return len(next(iter(self.fixed.values())))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns in their order; those that are NULL throughout come before what varies."""
        return (
            *self.fixed,
            *sorted(self.varying, key=lambda name: not _is_null(self.varying[name])),
        )


@dataclass(frozen=True, slots=True)
class Part:
    """A statement, and its arguments: ``{}`` stands for each of them, in their order."""

    name: str
    sql: str
    arguments: tuple[object, ...]


Found = Mapping[str, Sequence[Any]]
"""What parts that read have selected: rows by the name of the part."""


async def read(connection: AsyncConnection, parts: Sequence[Part]) -> Found:
    """What each part selects, by its name; each row of a part is one value, mostly a ROW.

    Parts share a message, and see one state but for the rows that they lock. They are carried out
    in their order. Raises asyncpg's own exceptions.
    """
    driver = await driver_of(connection)
    return dict(await driver.fetchrow(_selection(_shapes(parts)), *_arguments(parts)))


async def write(
    connection: AsyncConnection, rows: Sequence[Rows], parts: Sequence[Part]
) -> list[asyncpg.Record]:
    """Append rows and carry out ``parts``, in the connection's transaction; what the last returns.

    Parts share a message with each other, and with few rows; see `carry_out`.
    Raises asyncpg's own exceptions.
    """
    driver = await driver_of(connection)
    if max(map(len, rows), default=0) < _COPY_FROM:
        parts = [*map(_insert, rows), *parts]
    else:
        for some in rows:
            await driver.copy_to_table(
                some.table.name, source=_chunks(some), columns=some.names, format="binary"
            )
    return await carry_out(driver, parts)


async def carry_out(driver: asyncpg.Connection, parts: Sequence[Part]) -> list[asyncpg.Record]:
    """Carry out ``parts`` as one statement; what the last returns.

    None sees what another one does, but for the rows that one returns under its name.
    """
    found: list[asyncpg.Record] = await driver.fetch(_statement(_shapes(parts)), *_arguments(parts))
    return found


_Shapes = tuple[tuple[str, str, int], ...]
"""Of parts: name, statement, and how many arguments it has."""


def _shapes(parts: Sequence[Part]) -> _Shapes:
    return tuple([(part.name, part.sql, len(part.arguments)) for part in parts])


@lru_cache(_STATEMENTS)
def _selection(parts: _Shapes) -> str:
    return "SELECT " + ", ".join([f"ARRAY({sql}) AS {name}" for name, sql in _numbered(parts)])


@lru_cache(_STATEMENTS)
def _statement(parts: _Shapes) -> str:
    *first, (_, last) = _numbered(parts)
    ahead = ", ".join([f"{name} AS ({sql})" for name, sql in first])
    return f"WITH {ahead} {last}" if first else last


def _numbered(parts: _Shapes) -> list[tuple[str, str]]:
    """Names and statements, with the places for arguments counted through all of them."""
    numbers = count(1)
    return [
        (name, sql.format(*(f"${next(numbers)}" for _ in range(arguments))))
        for name, sql, arguments in parts
    ]


def _arguments(parts: Sequence[Part]) -> list[object]:
    return [argument for part in parts for argument in part.arguments]


def microseconds(times: Sequence[datetime]) -> npt.NDArray[np.int64]:
    """Times as PostgreSQL counts them."""
    return np.array([(each - _EPOCH) // _MICROSECOND for each in times], ">i8")


def slices(data: bytes, size: int) -> list[bytes]:
    """The values of ``size`` bytes that are one after another in ``data``."""
    return [data[start : start + size] for start in range(0, len(data), size)]


# ---- by COPY: https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS-BINARY


async def _chunks(rows: Rows) -> AsyncIterator[memoryview]:
    data = memoryview(copied(rows))
    for start in range(0, len(data), _CHUNK):
        yield data[start : start + _CHUNK]


def copied(rows: Rows) -> bytes:
    """Rows in the binary format of COPY."""
    head = _heads(rows)
    columns = [column for column in rows.varying.values() if not _is_null(column)]
    if not columns:
        return b"".join((_HEADER, head.tobytes(), _TRAILER))
    parts = [slices(head.tobytes(), head.shape[1])]
    for column in columns:
        parts += _fields(column)
    return b"".join([_HEADER, *chain.from_iterable(zip(*parts, strict=True)), _TRAILER])


def _is_null(column: Varying) -> bool:
    return column.count(None) == len(column)


def _heads(rows: Rows) -> npt.NDArray[np.uint8]:
    """Each row up to the values that vary, shape (n, bytes): the number of fields, and fields.

    Columns that are NULL throughout are among them.
    """
    columns = [column.view(np.uint8).reshape(len(rows), -1) for column in rows.fixed.values()]
    width = 2 + sum(4 + column.shape[1] for column in columns)
    nulls = sum(map(_is_null, rows.varying.values()))
    head = np.full((len(rows), width + 4 * nulls), 0xFF, np.uint8)  # -1 is the length of NULL
    head[:, :2] = np.frombuffer(len(rows.names).to_bytes(2), np.uint8)
    at = 2
    for column in columns:
        begin, end = at + 4, at + 4 + column.shape[1]
        head[:, at:begin] = np.frombuffer(column.shape[1].to_bytes(4), np.uint8)
        head[:, begin:end] = column
        at = end
    return head


def _fields(column: Varying) -> list[list[bytes]]:
    """Of each row the length of its value, -1 for NULL, and the value."""
    values = [value or b"" for value in column]
    lengths = np.fromiter(map(len, values), ">i4", len(values))
    if None in column:
        lengths[[value is None for value in column]] = -1
    return [slices(lengths.tobytes(), 4), values]


# ---- by INSERT -----------------------------------------------------------------------------------


def _insert(rows: Rows) -> Part:
    columns: dict[str, Fixed | Varying] = {**rows.fixed, **rows.varying}
    arrays = [_array(rows.table.c[name].type, columns[name]) for name in rows.names]
    return Part(f"new_{rows.table.name}", _insertion(rows.table, rows.names), tuple(arrays))


@cache
def _insertion(table: Table, names: tuple[str, ...]) -> str:
    kinds = [table.c[name].type.compile(_DIALECT) for name in names]
    arrays = ", ".join(f"{{}}::{kind}[]" for kind in kinds)
    quoted = ", ".join(f'"{name}"' for name in names)
    return f"INSERT INTO {table.name} ({quoted}) SELECT * FROM unnest({arrays})"  # noqa: S608  names of the schema


def _array(kind: TypeEngine[Any], column: Fixed | Varying) -> Sequence[object]:
    """A column as the driver wants an array of this type."""
    if not isinstance(column, np.ndarray):
        return [v and v.decode() for v in column] if isinstance(kind, Text) else column
    match kind:
        case Integer():
            return list(column.tolist())
        case Text():
            return [value.decode() for value in slices(column.tobytes(), column.shape[1])]
        case DateTime():
            return [_EPOCH + _MICROSECOND * value for value in column.tolist()]
        case Uuid():
            digits = column.tobytes().hex()
            return [digits[i : i + _UUID_DIGITS] for i in range(0, len(digits), _UUID_DIGITS)]
        case INET():
            return slices(column.tobytes(), column.shape[1])
        case _:
            raise TypeError(f"{kind} has no values of one size")
