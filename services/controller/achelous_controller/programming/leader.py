"""Leadership by a session advisory lock of PostgreSQL: at most one controller dispatches.

Two may believe for a moment that they lead; all that a leader does is harmless when done twice.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.programming.connections import session
from achelous_controller.store.failures import FAILURES

log = logging.getLogger(__name__)

LOCK_KEY: Final = 0x61_63_68_65_6C_6F_75_73
"""The advisory lock of the leader of this database."""

_RETRY_S: Final = 0.2
_PING_S: Final = 0.3
_WATCH_S: Final = 1.0
_KNOWN_FOR_S: Final = 3.0
_LOCKED: Final = """
    SELECT EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND granted AND objsubid = 1
            AND (classid::bigint << 32 | objid::bigint) = $1
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    )
"""
_SESSION: Final = {
    # PostgreSQL frees the lock of a leader that froze, or whose machine went silent
    "idle_session_timeout": "2000",
    "tcp_keepalives_idle": "1",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "2",
}


class Leadership:
    """Runs ``term`` whenever this controller leads.

    A term ends when the lock's connection breaks, or when the database fails the term itself; then
    everybody tries again. Other errors of the term are not handled here.
    """

    def __init__(
        self, engine: AsyncEngine, term: Callable[[], Coroutine[Any, Any, None]], *, may: bool
    ) -> None:
        """``may``: whether this controller may lead, and not only see who does."""
        self._engine = engine
        self._term = term
        self._attempt = self._try if may else self._watch
        self._leading = False
        self._other_leads_at = float("-inf")  # monotonic: when the lock was last seen taken

    @property
    def leading(self) -> bool:
        """Whether this controller leads."""
        return self._leading

    def problem(self) -> str | None:
        """None if somebody leads, this controller or another; else what is wrong."""
        if self._leading or time.monotonic() - self._other_leads_at < _KNOWN_FOR_S:
            return None
        return f"no leader is known: none was seen in the database for {_KNOWN_FOR_S:g} s or more"

    async def run(self) -> None:
        """Lead whenever nobody else does, if that may be, until cancelled."""
        while True:
            # In a task of its own: before Python 3.13 a task group that failed leaves its task
            # marked as cancelled, and this one must know whether it really is.
            attempt = asyncio.create_task(self._attempt())
            try:
                await attempt
            except* FAILURES as errors:
                log.warning("not leading: %r", _first(errors))
            _raise_if_cancelled()
            await asyncio.sleep(_RETRY_S)

    async def _watch(self) -> None:
        async with session(self._engine, "achelous-watch", {}) as connection:
            while True:
                if await connection.fetchval(_LOCKED, LOCK_KEY):
                    self._other_leads_at = time.monotonic()
                await asyncio.sleep(_WATCH_S)

    async def _try(self) -> None:
        async with session(self._engine, "achelous-leader", _SESSION) as connection:
            await self._acquire(connection)
            await self._lead(connection)

    async def _acquire(self, connection: Any) -> None:
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK_KEY):
            self._other_leads_at = time.monotonic()
            await asyncio.sleep(_RETRY_S)

    async def _lead(self, connection: Any) -> None:
        log.info("leading")
        self._leading = True
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_keep(connection))
                group.create_task(self._term())
        finally:
            self._leading = False


async def _keep(connection: Any) -> None:
    while True:
        await connection.fetchval("SELECT 1", timeout=1)
        await asyncio.sleep(_PING_S)


def _raise_if_cancelled() -> None:
    """A task group that failed and was cancelled at once reports the failure only."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
