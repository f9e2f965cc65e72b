"""What the tables of all resources have in common: one, a page, an update, a delete."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    FromClause,
    Select,
    Table,
    any_,
    bindparam,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.errors import NotFound
from achelous_controller.domain.precondition import Precondition
from achelous_controller.store.database import Record, fetch_one

_NOUNS: Final = {
    "projects": "project",
    "tokens": "token",
    "hosts": "host",
    "gateways": "gateway",
    "vpcs": "VPC",
    "subnets": "subnet",
    "security_groups": "security group",
    "security_group_rules": "rule",
    "instances": "instance",
    "vnics": "vNIC",
}


@dataclass(frozen=True, slots=True)
class Page:
    """Objects with ids above ``after``, ``limit`` of them at most, in order of id.

    Or of what else a list is ordered by, as 16 bytes.
    """

    after: UUID | None
    limit: int


async def one(
    connection: AsyncConnection, table: Table, object_id: UUID, project_id: UUID | None
) -> Record:
    """The object, if it is in the project or the project is None; raises `NotFound`."""
    return await _one(connection, table, object_id, project_id, lock=False)


async def locked(
    connection: AsyncConnection,
    table: Table,
    object_id: UUID,
    project_id: UUID | None,
    precondition: Precondition,
) -> Record:
    """Like `one`, locked for this transaction and at the version that the caller asks for."""
    row = await _one(connection, table, object_id, project_id, lock=True)
    precondition.check(row.version)
    return row


async def page(
    connection: AsyncConnection,
    table: Table,
    project_id: UUID | None,
    filters: Mapping[str, object],
    wanted: Page,
) -> Sequence[Record]:
    """A page of the objects that have the values in ``filters`` (None: any) in their columns."""
    query = page_query(table, project_id, filters, wanted)
    found: Sequence[Record] = (await connection.execute(query)).all()
    return found


def page_query(
    table: Table, project_id: UUID | None, filters: Mapping[str, object], wanted: Page
) -> Select[Any]:
    """The query of `page`: it goes on after an id, and so never reads what it passes over."""
    query = select(table)
    if project_id is not None:
        query = query.where(table.c.project_id == project_id)
    for column, value in filters.items():
        if value is not None:
            query = query.where(table.c[column] == value)
    if wanted.after is not None:
        query = query.where(table.c.id > wanted.after)
    return query.order_by(table.c.id).limit(wanted.limit)


def equal(table: FromClause, names: Collection[str]) -> list[ColumnElement[bool]]:
    """That these columns have the values of parameters by their names."""
    return [table.c[name] == bindparam(name) for name in sorted(names)]


def is_among(column: Column[Any], ids: Select[Any]) -> ColumnElement[bool]:
    """Whether it is one of these values, few, which are read first: as an array, whose elements
    are looked up in an index. Of a sub-select PostgreSQL would have to guess how many there are,
    and may rather walk along a whole table."""
    return column == any_(func.array(ids.scalar_subquery()))


async def change(
    connection: AsyncConnection, table: Table, object_id: UUID, values: Mapping[str, object]
) -> Record:
    """Write values into an object that is locked; its new row, one version further."""
    changed = update(table).where(table.c.id == object_id)
    return await fetch_one(
        connection, changed.values(**values, version=table.c.version + 1).returning(table)
    )


async def remove(connection: AsyncConnection, table: Table, object_id: UUID) -> None:
    """Delete an object that is locked."""
    await connection.execute(delete(table).where(table.c.id == object_id))


async def _one(
    connection: AsyncConnection,
    table: Table,
    object_id: UUID,
    project_id: UUID | None,
    *,
    lock: bool,
) -> Record:
    query = select(table).where(table.c.id == object_id)
    if project_id is not None:
        query = query.where(table.c.project_id == project_id)
    query = query.with_for_update() if lock else query
    row: Record | None = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound(_NOUNS[table.name], object_id)
    return row
