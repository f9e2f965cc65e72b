"""Real agents, on a packet path in memory, hold all routes of preprogrammed VPCs."""

import itertools
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import IPv4Address
from typing import Any
from uuid import UUID

import numpy as np
from api.client import Json, fresh, instance
from programming_fakes import Table
from programming_world import World, stored_streams

from achelous_lab.waiting import wait_until
from achelous_loadgen.sim.host import Place, SimulatedHost, simulated_host
from achelous_shared.bpf import NetNs
from achelous_shared.bus_roles import Role

CAPACITY = 2000

_numbers = itertools.count()


@asynccontextmanager
async def agents(world: World, count: int, **settings: Any) -> AsyncIterator[list[SimulatedHost]]:
    """So many registered hosts, whose agents run until the end of the block."""
    settings = {"max_fc": 64, "max_preprogrammed": CAPACITY, "max_ports": 512} | settings
    async with AsyncExitStack() as stack:
        netns = NetNs(None)
        stack.callback(netns.close)
        hosts = []
        for _ in range(count):
            vtep = IPv4Address("198.18.1.1") + next(_numbers)
            made = await world.api.make("/hosts", name=fresh("h"), vtep=str(vtep), capacity=9999)
            place = Place(UUID(made["id"]), vtep)
            url = world.nats.url(Role.VSWITCH)
            running = simulated_host(place, url, netns, **settings)
            hosts.append(await stack.enter_async_context(running))
        yield hosts


async def preprogrammed(world: World) -> Json:
    """A subnet of such a VPC."""
    project = await world.api.project(instances=50_000, vnics=50_000)
    vpc = await world.api.make(
        "/vpcs", name=fresh("v"), project_id=project["id"], programming_model="preprogrammed"
    )
    return await world.api.subnet(vpc, "10.0.0.0/16") | {"vni": vpc["vni"]}


async def run(world: World, subnet: Json, *on: tuple[SimulatedHost, int]) -> list[str]:
    """So many instances on each of these hosts, ACTIVE; their ids."""
    bodies = [
        instance(subnet, host_id=str(host.place.id)) for host, count in on for _ in range(count)
    ]
    made = await world.api.make("/instances:batch", instances=bodies)
    await world.until_active(timeout=30)
    return [one["id"] for one in made["instances"]]


def held(host: SimulatedHost, vni: int) -> Table:
    """What the packet path would find of a VPC: index, then entry."""
    path = host.agent.state.dataplane
    keys, slots = path.fc_index.lookup_batch_all()
    keys, entries = keys[keys["vni"] == vni], path.fc[slots[keys["vni"] == vni].astype(np.intp)]
    return {
        key["ip"].tobytes(): (int(entry["vtep"]), entry["mac"].tobytes(), int(entry["revision"]))
        for key, entry in zip(keys, entries, strict=True)
    }


async def assert_hold_all(world: World, hosts: Sequence[SimulatedHost], vni: int) -> None:
    """They have the database's routes once they had time to."""
    _, wanted = (await world.routes())[vni]
    for host in hosts:
        await wait_until(
            lambda host=host: held(host, vni) == wanted,  # type: ignore[misc]
            lambda host=host: f"{len(wanted)} routes, not {len(held(host, vni))}",  # type: ignore[misc]
        )


async def test_active_means_that_every_host_of_the_vpc_holds_every_route(world: World) -> None:
    async with agents(world, 3) as hosts:
        subnet = await preprogrammed(world)
        a, b, c = hosts
        made = await run(world, subnet, (a, 20), (b, 150))
        _, wanted = (await world.routes())[subnet["vni"]]
        assert held(a, subnet["vni"]) == held(b, subnet["vni"]) == wanted
        assert not held(c, subnet["vni"])

        await run(world, subnet, (c, 1))
        _, wanted = (await world.routes())[subnet["vni"]]
        assert all(held(host, subnet["vni"]) == wanted for host in hosts)

        await world.delete(made[:20])
        await wait_until(lambda: not held(a, subnet["vni"]), "the host without a vNIC to let go")
        await assert_hold_all(world, [b, c], subnet["vni"])
        assert len(held(b, subnet["vni"])) == 151


async def test_a_bus_that_lost_its_streams_costs_no_route(world: World) -> None:
    async with agents(world, 2) as hosts:
        subnet = await preprogrammed(world)
        await run(world, subnet, (hosts[0], 20), (hosts[1], 20))
        await world.nats.kill9()
        shutil.rmtree(stored_streams(world.nats))
        await world.nats.start()

        await run(world, subnet, (hosts[0], 20))

        await assert_hold_all(world, hosts, subnet["vni"])


async def test_a_host_that_died_holds_nobody_up(world: World) -> None:
    async with agents(world, 1) as [alive]:
        subnet = await preprogrammed(world)
        async with agents(world, 1) as [dying]:
            await run(world, subnet, (alive, 2), (dying, 2))

        await run(world, subnet, (alive, 2))

        await assert_hold_all(world, [alive], subnet["vni"])


async def test_what_does_not_fit_is_said_and_holds_nobody_up(world: World) -> None:
    async with agents(world, 1, max_preprogrammed=40) as [host]:
        first, second = await preprogrammed(world), await preprogrammed(world)
        gone = await run(world, first, (host, 30))
        await run(world, second, (host, 25))
        assert len(held(host, first["vni"])) == 30
        assert len(held(host, second["vni"])) == 10
        assert host.agent.state.preprogrammed.table.lacking == {second["vni"]}
        await run(world, second, (host, 1))

        await world.delete(gone)

        await assert_hold_all(world, [host], second["vni"])
        assert not host.agent.state.preprogrammed.table.lacking
