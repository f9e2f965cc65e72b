"""Projects and their tokens."""

import asyncio
import hashlib
import secrets
from collections.abc import Collection, Mapping
from typing import Final
from uuid import UUID

import asyncpg
from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.errors import Conflict
from achelous_controller.domain.ids import new_id
from achelous_controller.domain.precondition import Precondition
from achelous_controller.domain.principal import Principal
from achelous_controller.store import objects
from achelous_controller.store.database import Record, fetch_one
from achelous_controller.store.schema import projects, tokens, usage, vpcs
from achelous_controller.store.users import must_be_unused

_TOKEN_BYTES: Final = 32

REMEMBERED_S: Final = 0.05
"""So long a controller may take a token for good after it began to ask the database."""
_FORGOTTEN_S: Final = 2 * REMEMBERED_S
"""Longer, as clocks differ in pace and timers in precision."""


async def create(connection: AsyncConnection, name: str, quotas: Mapping[str, int]) -> Record:
    """A project with nothing in it."""
    project_id = new_id()
    row = await fetch_one(
        connection,
        insert(projects).values(id=project_id, name=name, quotas=dict(quotas)).returning(projects),
    )
    await connection.execute(insert(usage).values(project_id=project_id))
    return row


async def remove(connection: AsyncConnection, project_id: UUID, match: Precondition) -> None:
    """Delete a project without VPCs; its tokens end with it."""
    await objects.locked(connection, projects, project_id, None, match)
    await must_be_unused(
        connection, "the project", "vpc", vpcs, vpcs.c.name, vpcs.c.project_id == project_id
    )
    await connection.execute(delete(tokens).where(tokens.c.project_id == project_id))
    await objects.remove(connection, projects, project_id)


def new_token() -> str:
    """A bearer token of 256 random bits, in URL-safe characters."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def token_hash(token: str) -> bytes:
    """What is stored of a token. It is random: a fast hash is enough."""
    return hashlib.sha256(token.encode()).digest()


async def create_token(
    connection: AsyncConnection, name: str, project_id: UUID | None, token: str
) -> Record:
    """A token of a project, or (None) of an operator."""
    if project_id is not None:
        await objects.one(connection, projects, project_id, None)
    return await fetch_one(
        connection,
        insert(tokens)
        .values(id=new_id(), name=name, project_id=project_id, hash=token_hash(token))
        .returning(tokens),
    )


async def remove_token(connection: AsyncConnection, token_id: UUID) -> None:
    """Revoke a token; the last one of the operators stays, or nobody could make another."""
    token = await objects.one(connection, tokens, token_id, None)
    if token.project_id is None:
        left = select(tokens.c.id).where(tokens.c.project_id.is_(None)).order_by(tokens.c.id)
        if len((await connection.execute(left.with_for_update())).all()) == 1:
            raise Conflict("this is the operators' last token: make another one first")
    await objects.remove(connection, tokens, token_id)


_PRINCIPALS: Final = "SELECT hash, id, project_id FROM tokens WHERE hash = ANY($1::bytea[])"


async def principals(
    driver: asyncpg.Connection, tokens_given: Collection[str]
) -> dict[str, Principal]:
    """Who holds each of the different tokens; those that nobody holds are left out."""
    hashes = {token_hash(token): token for token in tokens_given}
    rows = await driver.fetch(_PRINCIPALS, list(hashes))
    return {hashes[row["hash"]]: Principal(row["id"], row["project_id"]) for row in rows}


async def forgotten() -> None:
    """Wait until no controller remembers a token whose removal was committed before."""
    await asyncio.sleep(_FORGOTTEN_S)


async def any_token(connection: AsyncConnection) -> bool:
    """Whether a token was ever made and not revoked."""
    count = select(func.count()).select_from(tokens)
    return bool((await connection.execute(count)).scalar_one())
