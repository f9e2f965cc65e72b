"""Routes reach the gateways: in order, without gaps, once; and those that fell behind catch up."""

import asyncio
from itertools import pairwise

from programming_world import World


async def test_deltas_of_a_vpc_come_in_order_and_join_on(world: World) -> None:
    subnets = [await world.subnet() for _ in range(4)]

    async def tenant(subnet: dict[str, str]) -> None:
        for count in (1, 3, 1, 2, 1, 1):
            made = await world.instances(subnet, count)
            await world.delete(made[:1])

    async with asyncio.TaskGroup() as group:
        for subnet in subnets * 2:
            group.create_task(tenant(subnet))
    await world.until_active()
    await world.assert_tables_equal()
    for gateway in world.gateways:
        assert len(gateway.received) == len(subnets)
        for deltas in gateway.received.values():
            revisions = [deltas[0].base, *(delta.revision for delta in deltas)]
            assert revisions == sorted(set(revisions))
            assert all(later.base == earlier.revision for earlier, later in pairwise(deltas))
        assert gateway.snapshots == 0
