"""Ids that several indexes have in common, in order: a leapfrog join.

To plan a join PostgreSQL guesses how many rows match and takes them to lie anywhere among the
others. Of a table that was filled at once it has no statistics yet, and ids rise with time, so what
belongs together are neighbours: nothing for long, then all at once. Told to find one page, it walks
a million rows along the wrong index. Here no guess matters. Each index in turn is asked for its
first id from where the one before stands; where all stand at the same id, it is one of the page.
From: Veldhuizen, "Leapfrog Triejoin", ICDT 2014.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from uuid import UUID

from sqlalchemy import (
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

Id: TypeAlias = ColumnElement[UUID]
First: TypeAlias = tuple[FromClause, ColumnElement[bool]]
"""A row, and when it is one that was asked for."""

AFTER: Final = bindparam("after", type_=Uuid)
"""Parameters of a page: what ids are above, `UUID(int=0)` at least, and how many."""
LIMIT: Final = bindparam("limit", type_=Integer)


@dataclass(frozen=True, eq=False, slots=True)
class Keyed:
    """The ids of the rows that have a value in a column; there is an index (column, id)."""

    id: Column[UUID]
    column: Column[Any]

    def first(self, least: Id, *bounds: ColumnElement[bool]) -> First:
        """The first of them from ``least`` on, as ``id`` of a row that may be of another value."""
        value = bindparam(self.column.name, type_=self.column.type)
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

    def first(self, least: Id, *bounds: ColumnElement[bool]) -> First:
        """Like that of `Keyed`."""
        only = () if self.condition is None else (self.condition,)
        found = select(self.id.label("id")).where(*only, self.id >= least, *bounds)
        return found.order_by(self.id).limit(1).lateral(), true()


Index: TypeAlias = Keyed | Indexed


def page_query(table: Table, indexes: Sequence[Index], rest: Collection[str]) -> Select[Any]:
    """A page of the rows whose id is in one or more indexes, in order of id.

    Its parameters are `AFTER`, `LIMIT`, and the values of columns by their names. Each step costs
    one look into each index. There is one for each row, and one wherever the indexes' runs of ids
    interleave without meeting. ``rest``: columns whose values nearly all of the last index have:
    those that have not are read and passed over.
    """
    after = cast(AFTER, Uuid)
    start = select(
        after.label("low"), after.label("high"), false().label("hit"), literal(0).label("hits")
    )
    leap = start.cte("leap", recursive=True)
    joined: FromClause = leap
    stands: list[Id] = []
    for index in indexes:
        bounds = []
        if not stands:  # it goes past where it stood: of an id it may have several rows
            bounds.append(index.id != leap.c.low)
        if index is indexes[-1] and rest:
            bounds.append(_has(table, index.id, rest))
        row, found = index.first(stands[-1] if stands else leap.c.high, *bounds)
        joined = joined.join(row, found)
        stands.append(row.c.id)
    low, high = stands[0], stands[-1]
    step = select(low, high, low == high, leap.c.hits + cast(low == high, Integer))
    leap = leap.union_all(step.select_from(joined).where(leap.c.hits < LIMIT))
    ids = select(leap.c.low).where(leap.c.hit)
    return select(table).where(objects.is_among(table.c.id, ids)).order_by(table.c.id)


def _has(table: Table, row_id: Id, columns: Collection[str]) -> ColumnElement[bool]:
    """As a scalar: of EXISTS PostgreSQL would make one more join to plan."""
    row = table.alias()
    return select(and_(*objects.equal(row, columns))).where(row.c.id == row_id).scalar_subquery()
