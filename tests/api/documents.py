"""Documents of hosts as the hosts read them."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.programming import outbox
from achelous_controller.programming.connections import session
from achelous_controller.programming.held_ports import HeldPorts
from achelous_controller.programming.host_documents import Fresh, Wanted, read_fresh, wanted_of
from achelous_shared.messages import HostDocument, decode, encode


@asynccontextmanager
async def snapshot(engine: AsyncEngine) -> AsyncIterator[Any]:
    """A connection as the leader's, that sees one moment of the database."""
    async with session(engine, "test", outbox.SESSION) as connection:
        await outbox.begin(connection)
        yield connection


async def read_wanted(connection: Any, again: Collection[UUID] = ()) -> dict[UUID, Wanted]:
    """What the outbox asks for, and ``again``."""
    rows = await outbox.read(connection)
    return await wanted_of(connection, rows.documents, again)


async def read_of(engine: AsyncEngine, hosts: Sequence[UUID | str], held: HeldPorts) -> list[Fresh]:
    """What to tell these hosts as the database stands now; nothing is published."""
    ids = [UUID(str(host)) for host in hosts]
    async with snapshot(engine) as connection:
        wanted = await read_wanted(connection, ids)
        return await read_fresh(connection, {host: wanted[host] for host in ids}, held)


async def read_whole(engine: AsyncEngine, hosts: Sequence[UUID | str]) -> list[HostDocument]:
    """As the database stands now, with nothing held of any of them."""
    found = await read_of(engine, hosts, HeldPorts())
    return [decode(encode(fresh.message), HostDocument) for fresh in found]
