"""Ids that several indexes have in common, in order: a leapfrog join.

To plan a join PostgreSQL guesses how many rows match and takes them to lie anywhere among the
others. Of a table that was filled at once it has no statistics yet, and ids rise with time, so what
belongs together are neighbours: nothing for long, then all at once. Told to find one page, it walks
a million rows along the wrong index. Here no guess matters. Each index in turn is asked for its
first id from where the one before stands; where all stand at the same id, it is one of the page.
From: Veldhuizen, "Leapfrog Triejoin", ICDT 2014.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias
from uuid import UUID

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    FromClause,
    Integer,
    Select,
    Table,
    Uuid,
    and_,
    bindparam,
    cast,
    false,
    literal,
    select,
    true,
    tuple_,
)

from achelous_controller.store import objects

Query: TypeAlias = tuple[Select[Any], dict[str, object]]
"""A statement, and what to execute it with."""
Id: TypeAlias = ColumnElement[UUID]
First: TypeAlias = tuple[FromClause, ColumnElement[bool]]
"""A row, and when it is one that was asked for."""

_BELOW_ALL: Final = UUID(int=0)


@dataclass(frozen=True, eq=False, slots=True)
class Keyed:
    """The ids of the rows that have a value in a column; there is an index (column, id)."""

    id: Column[UUID]
    column: Column[Any]

    def first(self, value: BindParameter[Any], least: Id, *bounds: ColumnElement[bool]) -> First:
        """The first of them from ``least`` on, as ``id`` of a row that may be of another value."""
        # bounds and order are rows: with an equality, an order by id is that of the primary key,
        # too, and PostgreSQL may walk along that
        place = tuple_(self.column, self.id) >= tuple_(value, least)
        found = select(self.id.label("id"), self.column.label("value")).where(place, *bounds)
        row = found.order_by(self.column, self.id).limit(1).lateral()
        return row, row.c.value == value


@dataclass(frozen=True, eq=False, slots=True)
class Indexed:
    """The ids of the rows for which a condition holds, or all; there is an index of no others."""

    id: Column[UUID]
    condition: ColumnElement[bool] | None = None

    def first(self, _: BindParameter[Any], least: Id, *bounds: ColumnElement[bool]) -> First:
        """Like that of `Keyed`."""
        only = () if self.condition is None else (self.condition,)
        found = select(self.id.label("id")).where(*only, self.id >= least, *bounds)
        return found.order_by(self.id).limit(1).lateral(), true()


Index: TypeAlias = Keyed | Indexed


def page_query(
    table: Table,
    parts: Sequence[tuple[Index, object]],
    wanted: objects.Page,
    rest: Mapping[str, object],
) -> Query:
    """A page of the rows whose id is in one or more indexes, in order of id.

    ``parts``: indexes, each with its value, None of an `Indexed`. Each step costs one look into
    each index. There is one for each row, and one wherever the indexes' runs of ids interleave
    without meeting. ``rest``: values that columns have to have, too, as nearly all of the last
    index have: those that have not are read and passed over.
    """
    values: dict[str, object] = {
        "after": wanted.after or _BELOW_ALL,
        "limit": wanted.limit,
        **{
            f"value_{number}": value for number, (_, value) in enumerate(parts) if value is not None
        },
        **{f"rest_{name}": value for name, value in rest.items()},
    }
    return _statement(table, tuple(index for index, _ in parts), tuple(rest)), values


@cache  # there are as many as ways to combine filters
def _statement(table: Table, indexes: tuple[Index, ...], rest: tuple[str, ...]) -> Select[Any]:
    after = cast(bindparam("after", type_=Uuid), Uuid)
    start = select(
        after.label("low"), after.label("high"), false().label("hit"), literal(0).label("hits")
    )
    leap = start.cte("leap", recursive=True)
    joined: FromClause = leap
    stands: list[Id] = []
    for number, index in enumerate(indexes):
        bounds = []
        if not stands:  # it goes past where it stood: of an id it may have several rows
            bounds.append(index.id != leap.c.low)
        if number == len(indexes) - 1 and rest:
            bounds.append(_has(table, index.id, rest))
        column = index.column if isinstance(index, Keyed) else index.id
        value = bindparam(f"value_{number}", type_=column.type)
        row, found = index.first(value, stands[-1] if stands else leap.c.high, *bounds)
        joined = joined.join(row, found)
        stands.append(row.c.id)
    low, high = stands[0], stands[-1]
    step = select(low, high, low == high, leap.c.hits + cast(low == high, Integer))
    is_full = leap.c.hits >= bindparam("limit", type_=Integer)
    leap = leap.union_all(step.select_from(joined).where(~is_full))
    page = select(leap.c.low).where(leap.c.hit)
    return select(table).where(objects.is_among(table.c.id, page)).order_by(table.c.id)


def _has(table: Table, row_id: Id, columns: Sequence[str]) -> ColumnElement[bool]:
    """As a scalar: of EXISTS PostgreSQL would make one more join to plan."""
    row = table.alias()
    equal = and_(*(row.c[name] == bindparam(f"rest_{name}") for name in columns))
    return select(equal).where(row.c.id == row_id).scalar_subquery()
