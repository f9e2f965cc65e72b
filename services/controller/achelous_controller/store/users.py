"""Who uses an object that somebody wants to delete."""

from typing import Final

from sqlalchemy import ColumnElement, Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.errors import InUse, User

MAX_USERS: Final = 20
"""As many are named; all are counted."""


async def must_be_unused(
    connection: AsyncConnection,
    what: str,
    kind: str,
    table: Table,
    label: ColumnElement[str],
    *conditions: ColumnElement[bool],
) -> None:
    """Raise `InUse` if rows of ``table`` use ``what``; ``label`` names them to people."""
    query = select(table.c.id, label.label("label")).where(*conditions)
    rows = (await connection.execute(query.order_by(table.c.id).limit(MAX_USERS))).all()
    if not rows:
        return
    total = select(func.count()).select_from(table).where(*conditions)
    count: int = (await connection.execute(total)).scalar_one()
    raise InUse(what, [User(kind, str(row.id), row.label) for row in rows], count)
