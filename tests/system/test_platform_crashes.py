"""kill -9 of each part while instances come and go: nothing is lost, stuck, or told wrongly.

Each test ends with the same questions: is every instance that the API accepted ACTIVE and
reachable, or gone if it was deleted; was it reachable as soon as the API said ACTIVE; are the
tables of gateways and hosts the database's; has a ping between two guests lost nothing meanwhile.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx
import pytest
from platform_world import Net, leader, learned, metric, wait_for_equal_tables

from achelous_lab.api import Api, ApiRefused, Object
from achelous_lab.hypervisor import Hypervisor, all_instances
from achelous_lab.netns.guest import Guest
from achelous_lab.platform import Instance, Lab, Size, vnic_body
from achelous_lab.waiting import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(240)]

DURING = 6
"""Instances that are asked for before and during each crash."""

HANDOVER_S = 2.0


@dataclass(slots=True)
class Accepted:
    """What the API said yes to."""

    kept: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class World:
    """A platform with a network, two guests that ping each other, and a hypervisor at work."""

    lab: Lab
    net: Net
    a: Instance
    b: Instance


@pytest.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    async with Lab(Size(hosts=2, gateways=2, controllers=2)) as lab:
        net = await Net.create(lab)
        a, b = await net.run(0, 1)
        await a.guest.ping(b.guest, count=2)
        await learned(lab, a, b)
        hypervisor = asyncio.create_task(Hypervisor(lab).run())
        yield World(lab, net, a, b)
        hypervisor.cancel()
        await asyncio.gather(hypervisor, return_exceptions=True)


async def insist(ask: Callable[[], Awaitable[Object]]) -> Object:
    """Ask until there is an answer other than: not now."""
    answer: list[Object] = []

    async def answered() -> bool:
        try:
            answer.append(await ask())
        except httpx.HTTPError:
            return False
        except ApiRefused as refused:
            if refused.status not in (409, 503):  # 409: the same request is still being served
                raise
            return False
        return True

    await wait_until(answered, "an answer of the API", timeout=30, interval=0.1)
    return answer[0]


async def insist_on_deleting(api: Api, instance_id: str) -> None:
    """Delete it. 404 is an answer too if an attempt before got none: that one has deleted it."""
    attempts = 0

    async def attempt() -> Object:
        nonlocal attempts
        attempts += 1
        try:
            return await api.delete(f"/instances/{instance_id}")
        except ApiRefused as refused:
            if attempts == 1 or refused.status != 404:
                raise
            return {}

    await insist(attempt)


async def come_and_go(world: World, accepted: Accepted) -> None:
    """Make instances one after the other, and delete every third."""
    api, vnic = world.net.tenant.api, vnic_body(world.net.subnet, groups=[world.net.open])
    for number in range(DURING):
        key = uuid.uuid4().hex
        body = {"name": f"i{key[:8]}", "kind": "container", "vnics": [vnic]}
        made = await insist(
            lambda body=body, key=key: api.call(  # type: ignore[misc]
                "POST", "/instances", body, headers={"Idempotency-Key": key}
            )
        )
        if number % 3 == 2:
            await insist_on_deleting(api, made["id"])
            accepted.deleted.append(made["id"])
        else:
            accepted.kept.append(made["id"])


async def active_means_reachable(world: World, seen: set[str]) -> None:
    """Ping each instance as soon as it is ACTIVE and its guest has its cable, until cancelled."""
    while True:
        with suppress(httpx.HTTPError, ApiRefused):
            found = await all_instances(world.lab.api)
            active = {key for key, one in found.items() if one["state"] == "ACTIVE"}
            plugged_in = {str(one.id): one.guest for one in world.lab.instances}
            for key in (active & plugged_in.keys()) - seen:
                seen.add(key)
                await answers_at_once(world, key, plugged_in[key])
        await asyncio.sleep(0.02)


async def answers_at_once(world: World, instance_id: str, guest: Guest) -> None:
    """Its first packet is answered, unless it is being deleted meanwhile."""
    if (await world.a.guest.ping(guest.ip, count=1)).received:
        return
    now = await insist(lambda: world.lab.api.get(f"/instances/{instance_id}"))
    assert now["state"] == "DELETING", f"{now['name']} was ACTIVE and did not answer"


@asynccontextmanager
async def under_load(world: World) -> AsyncIterator[None]:
    """Instances come and go and a ping runs inside; afterwards all questions are asked."""
    accepted = Accepted()
    async with world.a.guest.pinger(world.b.guest) as pinger:
        await pinger.wait_for_replies(10)
        async with asyncio.TaskGroup() as group:
            seen = set(await all_instances(world.lab.api))
            witness = group.create_task(active_means_reachable(world, seen))
            load = group.create_task(come_and_go(world, accepted))
            await wait_until(lambda: len(accepted.kept) >= 2, "the first to be accepted")
            yield
            await load
            await everything_converges(world, accepted)
            await wait_until(lambda: seen >= set(accepted.kept), "each to be pinged")
            witness.cancel()
        count = await pinger.stop()
    assert count.lost == 0, count
    await wait_for_equal_tables(world.lab)
    await every_one_answers(world, accepted)


async def everything_converges(world: World, accepted: Accepted) -> None:
    """Every accepted instance is ACTIVE or gone, and nothing else is there."""
    last: dict[str, str] = {}

    async def converged() -> bool:
        try:
            found = await all_instances(world.lab.api)
        except (httpx.HTTPError, ApiRefused):
            return False
        last.clear()
        last.update({key: one["state"] for key, one in found.items()})
        return not last.keys() & set(accepted.deleted) and set(last.values()) == {"ACTIVE"}

    await wait_until(converged, lambda: f"all to be ACTIVE or gone: {last}", timeout=60)
    assert set(accepted.kept) <= last.keys()


async def every_one_answers(world: World, accepted: Accepted) -> None:
    guests = {str(one.id): one.guest for one in world.lab.instances}
    for instance_id in accepted.kept:
        ping = await world.a.guest.ping(guests[instance_id], count=2)
        assert ping.received == 2, instance_id


async def test_the_leading_controller(world: World) -> None:
    leading = await leader(world.lab)
    async with under_load(world):
        await leading.kill9()
        await wait_until(
            lambda: leader_is_not(world.lab, leading.name), "another to lead", timeout=HANDOVER_S
        )
        await leading.start()


async def leader_is_not(lab: Lab, name: str) -> bool:
    others = [one for one in lab.controllers if one.running and one.name != name]
    return any([await metric(lab, one, "programming_leader") for one in others])


async def test_the_standby_controller(world: World) -> None:
    leading = await leader(world.lab)
    (standby,) = [one for one in world.lab.controllers if one is not leading]
    async with under_load(world):
        await standby.kill9()
        await standby.start()


async def test_a_gateways_agent(world: World) -> None:
    async with under_load(world):
        await world.lab.gateways[0].agent.kill9()
        await world.lab.gateways[0].agent.start()


async def test_a_vswitchs_agent(world: World) -> None:
    async with under_load(world):
        await world.lab.hosts[0].agent.kill9()
        await world.lab.hosts[0].agent.start()


async def test_the_bus(world: World) -> None:
    assert world.lab.nats is not None
    async with under_load(world):
        await world.lab.nats.kill9()
        await world.lab.nats.start()


async def test_the_database(world: World) -> None:
    assert world.lab.postgres is not None
    async with under_load(world):
        await world.lab.postgres.kill9()
        await world.lab.postgres.start()


@pytest.mark.alone
async def test_a_gateways_machine_takes_nothing_with_it(world: World) -> None:
    fresh = await world.net.run(0, 1, 0, 1)
    dead = world.lab.gateways[1]
    async with world.a.guest.pinger(world.b.guest) as pinger:
        await pinger.wait_for_replies(10)
        await dead.node.down()
        try:
            started = time.monotonic()
            for one, other in ((0, 1), (1, 2), (2, 3), (3, 0)):

                async def answers(one: int = one, other: int = other) -> bool:
                    ping = await fresh[one].guest.ping(fresh[other].guest, count=1, wait=0.2)
                    return ping.received == 1

                await wait_until(answers, "a pair that had never talked", timeout=5)
            took = time.monotonic() - started
        finally:
            await dead.node.up()
        count = await pinger.stop()
    assert count.lost == 0
    assert took < 1
