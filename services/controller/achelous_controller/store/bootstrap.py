"""The first operator's token, without which nobody could make another."""

import logging
import os
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.store import projects
from achelous_controller.store.migrate import lock_start

log = logging.getLogger(__name__)

_NAME = "first-operator"


async def first_token(engine: AsyncEngine, path: Path) -> None:
    """Make an operator's token in a database that has no token, and write it to ``path``.

    The file has mode 0600 and appears whole. Of several controllers that start at once, one does
    it.
    """
    async with engine.begin() as connection:
        await lock_start(connection)
        if await projects.any_token(connection):
            return
        token = projects.new_token()
        await projects.create_token(connection, _NAME, None, token)
        _write(path, token)  # before the commit: a token that nobody has read opens nothing
    log.info("the first operator's token is in %s", path)


def _write(path: Path, token: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{token}\n")
        file.flush()
        os.fsync(file.fileno())
    scratch.rename(path)
