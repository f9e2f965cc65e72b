"""Documents of hosts as the hosts read them."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.programming.documents import snapshot
from achelous_controller.programming.held_ports import HeldPorts
from achelous_controller.programming.host_documents import Fresh, read_fresh, read_wanted
from achelous_shared.messages import HostDocument, decode, encode


async def read_of(engine: AsyncEngine, hosts: Sequence[UUID | str], held: HeldPorts) -> list[Fresh]:
    """What to tell these hosts as the database stands now; nothing is published."""
    ids = [UUID(str(host)) for host in hosts]
    async with snapshot(engine) as connection:
        wanted, _ = await read_wanted(connection, ids)
        return await read_fresh(connection, {host: wanted[host] for host in ids}, held)


async def read_whole(engine: AsyncEngine, hosts: Sequence[UUID | str]) -> list[HostDocument]:
    """As the database stands now, with nothing held of any of them."""
    found = await read_of(engine, hosts, HeldPorts())
    return [decode(encode(fresh.message), HostDocument) for fresh in found]
