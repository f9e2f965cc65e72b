"""Connections to PostgreSQL: bounded in number and in time, whole again after its restart."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

from sqlalchemy import Executable, Row, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

Record: TypeAlias = Row[*tuple[Any, ...]]
"""A row of a table, its columns as attributes."""

STATEMENT_TIMEOUT_S: Final = 15
LOCK_TIMEOUT_S: Final = 10
_CLIENT_TIMEOUT_S: Final = 20
"""For a server that is gone without a word; longer than its own timeouts."""

_SERVER_SETTINGS: Final = {
    "application_name": "achelous-controller",
    "statement_timeout": f"{STATEMENT_TIMEOUT_S}s",
    "lock_timeout": f"{LOCK_TIMEOUT_S}s",
    "idle_in_transaction_session_timeout": "60s",
    "jit": "off",  # our queries are short: compiling them takes longer than they do
}


def create_engine(dsn: str) -> AsyncEngine:
    """The engine of a controller; ``dsn`` is postgresql+asyncpg://..."""
    return create_async_engine(
        dsn,
        pool_size=16,
        max_overflow=16,
        pool_timeout=5,
        pool_pre_ping=True,
        connect_args={
            "server_settings": _SERVER_SETTINGS,
            "timeout": 5,
            "command_timeout": _CLIENT_TIMEOUT_S,
        },
    )


class Database:
    """How the API reaches the desired state."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._snapshots = engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        self._glances = engine.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Several queries of one state; nothing can be written."""
        async with self._snapshots.connect() as connection:
            yield connection

    @asynccontextmanager
    async def glance(self) -> AsyncIterator[AsyncConnection]:
        """One query, without the two messages that a transaction costs."""
        async with self._glances.connect() as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """One transaction, committed at the end and undone by an exception."""
        async with self._engine.begin() as connection:
            yield connection

    async def ping(self) -> str | None:
        """None if the database answers, else what is wrong."""
        try:
            async with self.glance() as connection:
                await connection.execute(text("SELECT 1"))
        except (*UNREACHABLE, DBAPIError) as error:
            return f"{type(error).__name__}: {error}"
        return None


async def fetch_one(connection: AsyncConnection, statement: Executable) -> Record:
    """The one row that a statement yields."""
    row: Record = (await connection.execute(statement)).one()
    return row


UNREACHABLE: Final = (OSError, PoolTimeout, TimeoutError)
"""Beside `DBAPIError`: what an attempt to connect raises."""
