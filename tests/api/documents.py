"""Documents of hosts as the hosts read them."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.programming.held_ports import HeldPorts
from achelous_controller.programming.host_documents import read_fresh
from achelous_shared.messages import HostDocument, decode, encode


async def read_whole(engine: AsyncEngine, hosts: Sequence[UUID]) -> list[HostDocument]:
    """As the database stands now, with nothing held of any of them."""
    found = await read_fresh(engine, hosts, HeldPorts())
    return [decode(encode(fresh.document), HostDocument) for fresh in found]
