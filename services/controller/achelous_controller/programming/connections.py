"""Connections to PostgreSQL of the leader's own, beside the engine's pool.

A lock held and a channel listened to belong to one session each: they can not share the pool.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.store.database import PLANS

_TIMEOUT_S: Final = 2.0
WORK_TIMEOUT_S: Final = 20.0
"""For statements over many rows; longer than the server's own limit."""


@asynccontextmanager
async def session(
    engine: AsyncEngine, name: str, settings: Mapping[str, str], timeout: float = _TIMEOUT_S
) -> AsyncIterator[Any]:
    """An asyncpg connection to the engine's database, with ``settings`` of the session.

    Beside `PLANS`, which the engine's connections have, too.
    ``timeout``: seconds that a statement may take.

    When the connection breaks, the body is cancelled and `ConnectionResetError` raised.
    """
    _, options = engine.dialect.create_connect_args(engine.url)
    connection = await asyncpg.connect(
        **options,
        timeout=_TIMEOUT_S,
        command_timeout=timeout,
        server_settings={"application_name": name, **PLANS, **settings},
    )
    try:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_broken(connection, name))
            yield connection
            watch.cancel()
    finally:
        connection.terminate()  # the server lets go of what the session held when the socket closes


async def _broken(connection: Any, name: str) -> None:
    broken = asyncio.Event()
    connection.add_termination_listener(lambda _: broken.set())
    if not connection.is_closed():
        await broken.wait()
    raise ConnectionResetError(f"the database connection of {name} broke")
