"""How many there are of everything."""

from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.store.schema import gateways, hosts, instances, projects, vnics, vpcs

_COUNTED: Final = (projects, vpcs, vnics, hosts, gateways)


async def instances_by_state(connection: AsyncConnection) -> dict[InstanceState, int]:
    """The number of instances in every state."""
    query = select(instances.c.state, func.count()).group_by(instances.c.state)
    found = {InstanceState(state): count for state, count in await connection.execute(query)}
    return {state: found.get(state, 0) for state in InstanceState}


async def objects(connection: AsyncConnection) -> dict[str, int]:
    """The number of rows of each other table, by its name."""
    counts = [
        select(func.count()).select_from(table).scalar_subquery().label(table.name)
        for table in _COUNTED
    ]
    row = (await connection.execute(select(*counts))).one()
    return dict(row._mapping)  # noqa: SLF001  a row's public view of its columns
