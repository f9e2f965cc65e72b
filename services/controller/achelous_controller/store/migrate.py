"""Bringing the database to the schema of this version, whoever starts first."""

import asyncio
import logging
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from achelous_controller.domain.errors import Unavailable
from achelous_controller.store.failures import FAILURES, refusal

log = logging.getLogger(__name__)

_LOCK: Final = 0x41434845
"""Advisory lock of a controller that starts: migrations and the first token happen once."""

_RETRY_S: Final = 0.5


async def lock_start(connection: AsyncConnection) -> None:
    """Wait until no other controller is starting; held to the end of the transaction."""
    await connection.execute(text("SET LOCAL lock_timeout = 0"))
    await connection.execute(text("SET LOCAL statement_timeout = 0"))
    await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))


async def migrate(engine: AsyncEngine) -> None:
    """Upgrade the schema to the newest revision, waiting for the database as long as it takes."""
    while True:
        try:
            async with engine.begin() as connection:
                await lock_start(connection)
                await connection.run_sync(upgrade)
        except FAILURES as error:
            if not isinstance(refusal(error), Unavailable):
                raise
            log.info("database: not reachable yet (%s)", error)
            await asyncio.sleep(_RETRY_S)
        else:
            return


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the schema to a revision in the connection's transaction."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
