"""Routes reach the gateways: in order, without gaps, once; and those that fell behind catch up."""

import asyncio
from itertools import pairwise

import pytest
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


async def test_deltas_of_a_vpc_that_wait_together_are_one_message(idle: World) -> None:
    first = await idle.add_controller()
    subnets = [await idle.subnet() for _ in range(2)]
    for subnet in subnets:
        await idle.instances(subnet, 1)
    await idle.until_active()
    await idle.assert_tables_equal()
    await first.crash()

    for subnet in subnets * 3:
        made = await idle.instances(subnet, 5)
        await idle.delete(made[:2])
    await idle.add_controller()

    await idle.until_active()
    await idle.assert_tables_equal()
    for gateway in idle.gateways:
        for deltas in gateway.received.values():
            assert (deltas[-1].base, deltas[-1].revision) == (1, 10)
        assert gateway.snapshots == 0


async def test_a_crash_after_publishing_loses_nothing_and_repeats_nothing(idle: World) -> None:
    first = await idle.add_controller()
    subnet = await idle.subnet()
    for _ in range(5):
        await idle.instances(subnet, 20)
        await first.crash()
        first = await idle.add_controller()

    await idle.until_active()

    await idle.assert_tables_equal()
    for gateway in idle.gateways:
        (deltas,) = gateway.received.values()
        revisions = [delta.revision for delta in deltas]
        assert revisions == sorted(set(revisions))


async def test_a_lost_last_delta_is_noticed_by_its_announcement(world: World) -> None:
    subnet = await world.subnet()
    await world.instances(subnet, 1)
    await world.until_active()
    before = world.gateways[0].snapshots  # one if it began behind the first delta
    world.gateways[0].lose = 1

    await world.instances(subnet, 1)
    await world.until_active()

    assert world.gateways[0].snapshots == before + 1
    await world.assert_tables_equal()


@pytest.mark.alone
async def test_a_snapshot_read_while_routes_change_joins_on_to_the_deltas(world: World) -> None:
    subnet = await world.subnet()
    await world.instances(subnet, 9000)  # more than one page
    await world.until_active(timeout=60)
    late = world.gateways[0]

    async def change() -> None:
        for _ in range(20):
            made = await world.instances(subnet, 5)
            await world.delete(made[:3])

    async with asyncio.TaskGroup() as group:
        group.create_task(change())
        late.tables.clear()
        late.revisions.clear()  # as after a restart
    await world.until_active()

    await world.assert_tables_equal()
    assert late.snapshots >= 1
