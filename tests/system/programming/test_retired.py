"""Numbers of identities rest until the whole fleet has reported, whatever was lost meanwhile."""

from api.client import Json
from programming_world import World
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from achelous_controller.programming.metrics import Metrics
from achelous_controller.programming.observer import Observer
from achelous_controller.programming.retired import RetiredIdentities
from achelous_lab.waiting import wait_until
from achelous_shared.bus_roles import Role

REST_S = 3600.0
ALL = 1_000_000


async def leader_of(world: World) -> RetiredIdentities:
    """What a leader does that has just begun, step by step; it has heard of everybody."""
    observer = Observer(
        world.engine, await world.bus(Role.CONTROLLER), Metrics(CollectorRegistry())
    )
    world.run(observer.run())

    def everybody_reported() -> bool:
        reports = observer.reports
        return len(reports.hosts) + len(reports.gateways) == world.fleet_size()

    await wait_until(everybody_reported, "everybody to report")
    return RetiredIdentities(world.engine, observer, REST_S)


async def retire(world: World, subnet: Json, number: int, seconds_ago: float) -> None:
    query = text(
        "INSERT INTO retired_identities (vpc_id, number, retired_at)"
        " SELECT vpc_id, :number, now() - :ago * interval '1 second' FROM subnets WHERE id = :id"
    )
    async with world.engine.begin() as connection:
        values = {"id": subnet["id"], "number": number, "ago": seconds_ago}
        await connection.execute(query, values)


async def resting(world: World) -> list[int]:
    async with world.engine.connect() as connection:
        query = text("SELECT number FROM retired_identities ORDER BY number")
        return list((await connection.execute(query)).scalars())


async def freed(leader: RetiredIdentities, world: World, rest: list[int]) -> bool:
    """Whether these are left after its next step."""
    await leader.step()
    return await resting(world) == rest


async def test_a_number_rests_while_a_host_has_lost_its_document(world: World) -> None:
    subnet = await world.subnet()
    await world.instances(subnet, 4)
    await world.until_active()
    await retire(world, subnet, 7, REST_S + 60)
    await retire(world, subnet, 8, REST_S - 60)
    late = world.hosts[0]
    late.lose = ALL
    await world.instances(subnet, 1, late)
    first = await leader_of(world)

    await first.step()
    await first.step()
    assert await resting(world) == [7, 8]
    late.lose = 0
    again = await leader_of(world)  # the one before crashed
    await wait_until(lambda: freed(again, world, [8]), "a number to be free", timeout=20)


async def test_a_number_rests_while_a_gateway_has_lost_routes(world: World) -> None:
    subnet = await world.subnet()
    await world.instances(subnet, 2)
    await world.until_active()
    await retire(world, subnet, 7, REST_S + 60)
    world.gateways[0].deaf = True
    await world.instances(subnet, 1)
    leader = await leader_of(world)

    await leader.step()
    await leader.step()
    assert await resting(world) == [7]
    world.gateways[0].deaf = False
    await wait_until(lambda: freed(leader, world, []), "the number to be free", timeout=20)
