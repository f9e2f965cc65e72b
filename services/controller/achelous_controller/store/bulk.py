"""COPY, which takes rows ten times faster than INSERT."""

from collections.abc import Sequence

import asyncpg
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection


async def copy(
    connection: AsyncConnection,
    table: Table,
    columns: Sequence[str],
    records: Sequence[tuple[object, ...]],
) -> None:
    """Append rows in the connection's transaction; raises asyncpg's own exceptions."""
    raw = await connection.get_raw_connection()
    driver: asyncpg.Connection = raw.driver_connection
    await driver.copy_records_to_table(table.name, records=records, columns=columns)
