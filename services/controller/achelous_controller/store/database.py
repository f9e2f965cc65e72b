"""Connections to PostgreSQL: bounded in number and in time, whole again after its restart."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPV4LENGTH, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Final, TypeAlias, TypeVar
from uuid import UUID

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement
from sqlalchemy import Executable, Row, event, text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.util import greenlet_spawn

from achelous_controller.domain.networks import Address, Network

T = TypeVar("T")
Record: TypeAlias = Row[*tuple[Any, ...]]
"""A row of a table, its columns as attributes."""

STATEMENT_TIMEOUT_S: Final = 15
LOCK_TIMEOUT_S: Final = 10
_CLIENT_TIMEOUT_S: Final = 20
"""For a server that is gone without a word; longer than its own timeouts."""
_ROLLBACK_S: Final = 5
_MOST_DEADLOCKS: Final = 2
"""Each has lasted for a second when it is found."""

_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
_PLANNED_ONCE: Final = "SET LOCAL plan_cache_mode = force_generic_plan"

INET_HEADS: Final = {4: b"\x02\x20\x00\x04", 6: b"\x03\x80\x00\x10"}
"""What ``inet_send`` puts before an address: family, prefix length, is it a cidr, size."""
_INET_HEAD_BYTES: Final = 4

_FRESH_S: Final = 1.0
_RESTS_SINCE: Final = "rests since"
_PREPARED: Final = "prepared"

PLANS: Final = {
    "jit": "off",  # our queries are short: compiling them takes longer than they do
    # a statement's plan is kept: one that was made while tables were empty would read them whole
    # when they have grown
    "enable_seqscan": "off",
}
"""Settings of every connection."""

_SERVER_SETTINGS: Final = {
    "application_name": "achelous-controller",
    "statement_timeout": f"{STATEMENT_TIMEOUT_S}s",
    "lock_timeout": f"{LOCK_TIMEOUT_S}s",
    "idle_in_transaction_session_timeout": "60s",
    **PLANS,
}


def create_engine(dsn: str) -> AsyncEngine:
    """The engine of a controller; ``dsn`` is postgresql+asyncpg://..."""
    engine = create_async_engine(
        dsn,
        pool_size=16,
        max_overflow=16,
        pool_timeout=5,
        pool_use_lifo=True,  # the connection that was used last knows the statements already
        connect_args={
            "server_settings": _SERVER_SETTINGS,
            "timeout": 5,
            "command_timeout": _CLIENT_TIMEOUT_S,
        },
    )
    event.listen(engine.sync_engine, "connect", _quick_addresses)
    _ping_rested(engine)
    return engine


def _quick_addresses(connection: Any, _: object) -> None:
    """Codecs of our own for inet: the driver's make text of each address and parse that again."""
    connection.run_async(
        lambda driver: driver.set_type_codec(
            "inet",
            schema="pg_catalog",
            format="binary",
            encoder=_inet_bytes,
            decoder=_inet_address,
        )
    )


def _inet_bytes(value: Address | Network | bytes) -> bytes:
    if isinstance(value, bytes):  # as they are
        return value
    head = INET_HEADS[value.version]
    if isinstance(value, IPv4Network | IPv6Network):
        return bytes((head[0], value.prefixlen, *head[2:])) + value.network_address.packed
    return head + value.packed


def _inet_address(data: bytes) -> Address:
    packed = data[_INET_HEAD_BYTES:]
    return IPv4Address(packed) if len(packed) == IPV4LENGTH // 8 else IPv6Address(packed)


def _ping_rested(engine: AsyncEngine) -> None:
    """Ask whether a connection still works before it is used, unless it worked a moment ago.

    The pool's own option asks each time, which is one more round trip for every request.
    """
    pool, dialect = engine.sync_engine.pool, engine.dialect

    @event.listens_for(pool, "checkin")
    def _rest(_: object, record: ConnectionPoolEntry) -> None:
        record.info[_RESTS_SINCE] = time.monotonic()

    @event.listens_for(pool, "checkout")
    def _wake(
        connection: DBAPIConnection, record: ConnectionPoolEntry, _: PoolProxiedConnection
    ) -> None:
        driver: asyncpg.Connection | None = record.driver_connection
        if driver is None or driver.is_closed():  # the socket told that already
            raise DisconnectionError("the server closed the connection")
        if time.monotonic() - record.info.get(_RESTS_SINCE, float("inf")) < _FRESH_S:
            return
        try:
            dialect.do_ping(connection)
        except (dialect.loaded_dbapi.Error, *UNREACHABLE) as error:
            raise DisconnectionError(str(error)) from error  # the pool takes another one


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement that every connection prepares once, by name, so that it is planned once.

    ``arguments``: its $1 and so on, written as in SQL.
    """

    name: str
    sql: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"EXECUTE {self.name}({', '.join(self.arguments)})"


First = str | Prepared


def array(ids: Iterable[UUID]) -> str:
    """Ids as an argument of `Prepared`."""
    return f"'{{{','.join(map(str, ids))}}}'"


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
    async def driver(self) -> AsyncIterator[asyncpg.Connection]:
        """Like `glance`, without SQLAlchemy: a query that every request makes costs a third so."""
        async with self._pooled() as pooled:
            yield _raw(pooled)

    @asynccontextmanager
    async def transaction(self, *first: First) -> AsyncIterator[asyncpg.Connection]:
        """Like `write`, without SQLAlchemy.

        The plans of its statements are made once for all arguments: with those of a few rows
        PostgreSQL would make each anew, which takes longer than to carry it out.
        """
        async with (
            self._pooled() as pooled,
            _transaction(driver := _raw(pooled), pooled.info, (_PLANNED_ONCE, *first)),
        ):
            yield driver

    @asynccontextmanager
    async def _pooled(self) -> AsyncIterator[PoolProxiedConnection]:
        pooled = await self._engine.raw_connection()
        try:
            yield pooled
        finally:
            await greenlet_spawn(pooled.close)  # one more than the pool keeps is closed

    @asynccontextmanager
    async def write(self, *first: First) -> AsyncIterator[AsyncConnection]:
        """One transaction, committed at the end and undone by an exception.

        ``first``: statements that begin it, whose results nobody needs. They are sent with BEGIN,
        so what they lock is had after one message, and the next statement sees it as it is then.
        """
        async with (
            self._glances.connect() as connection,  # for the driver; BEGIN is ours
            _transaction(await _driver(connection), connection.info, first),
        ):
            yield connection

    async def ping(self) -> str | None:
        """None if the database answers, else what is wrong."""
        try:
            async with self.glance() as connection:
                await connection.execute(text("SELECT 1"))
        except (*UNREACHABLE, DBAPIError) as error:
            return f"{type(error).__name__}: {error}"
        return None


async def despite_deadlocks(transaction: Callable[[], Awaitable[T]]) -> T:
    """Carry out a whole transaction, again if PostgreSQL undid it to end a deadlock.

    For those that have to lock more when they have read what they need: whoever held what they
    waited for has gone on, and is most times done, when they begin again.
    """
    for _ in range(_MOST_DEADLOCKS):
        try:
            return await transaction()
        except (DBAPIError, asyncpg.DeadlockDetectedError) as error:
            if getattr(cause_of(error), "sqlstate", None) != asyncpg.DeadlockDetectedError.sqlstate:
                raise
    return await transaction()


def cause_of(error: BaseException) -> BaseException | None:
    """The driver's exception that SQLAlchemy has wrapped; of others the exception itself."""
    return error.orig if isinstance(error, DBAPIError) else error


async def fetch_one(connection: AsyncConnection, statement: Executable) -> Record:
    """The one row that a statement yields."""
    row: Record = (await connection.execute(statement)).one()
    return row


async def driver_of(connection: AsyncConnection) -> asyncpg.Connection:
    """The driver's own connection, for statements of the transaction that has begun on it.

    A statement costs a quarter of what it costs by SQLAlchemy. Raises asyncpg's own exceptions.
    """
    driver = await _driver(connection)
    if not driver.is_in_transaction():
        raise RuntimeError("no transaction has begun: take the connection from Database.write")
    return driver


async def _driver(connection: AsyncConnection) -> asyncpg.Connection:
    return _raw(await connection.get_raw_connection())


def _raw(pooled: PoolProxiedConnection) -> asyncpg.Connection:
    driver: asyncpg.Connection = pooled.driver_connection
    return driver


@asynccontextmanager
async def _transaction(
    driver: asyncpg.Connection, info: dict[Any, Any], first: Sequence[First]
) -> AsyncIterator[None]:
    """``info``: what the pool remembers of the connection."""
    await _prepare(driver, info.setdefault(_PREPARED, {}), first)
    try:
        await driver.execute("; ".join((_BEGIN, *map(str, first))))
        yield
        await driver.execute("COMMIT")
    except BaseException:
        await _roll_back(driver)
        raise


async def _prepare(
    driver: asyncpg.Connection, held: dict[str, PreparedStatement], first: Iterable[First]
) -> None:
    """``held``: what the connection has prepared."""
    for each in first:
        if isinstance(each, Prepared) and each.name not in held:
            try:
                held[each.name] = await driver.prepare(each.sql, name=each.name)
            except BaseException:  # whether it has the statement now is not known
                driver.terminate()
                raise


async def _roll_back(driver: asyncpg.Connection) -> None:
    """Undo the transaction; a connection that cannot do that now is closed, which undoes it."""
    if driver.is_closed():
        return
    try:
        await driver.execute("ROLLBACK", timeout=_ROLLBACK_S)
    except BaseException as error:
        driver.terminate()
        if not isinstance(error, Exception):  # cancelled again
            raise


UNREACHABLE: Final = (OSError, PoolTimeout, TimeoutError, AsyncAdapt_asyncpg_dbapi.Error)
"""Beside `DBAPIError`: what an attempt to connect raises. The last is what a server that starts
answers; who asks the pool for a connection has it as it is, not as a `DBAPIError`."""
