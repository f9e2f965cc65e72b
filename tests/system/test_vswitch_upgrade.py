"""Agents end and come back, as they were or with programs of another layout, and nobody notices."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from other_layout import MORE_FIELDS, compile_vswitch
from vswitch_world import Host, World, make_world

from achelous_lab.netns.network import Network
from achelous_lab.rundir import RunDir

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]

SECONDS = 20
"""So long data flows; the agents are up again before it ends."""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    with RunDir.create() as run_dir:
        async with Network(run_dir) as network, make_world(run_dir, network, 2, 1) as world:
            yield world


async def kill(host: Host, objects: Path) -> None:
    await host.agent.kill9()
    await host.start_again()


async def stop(host: Host, objects: Path) -> None:
    await host.agent.stop()
    await host.start_again()


async def upgrade(host: Host, objects: Path) -> None:
    await host.agent.stop()
    host.upgrade(objects)
    await host.start_again()


@pytest.mark.parametrize("how", [kill, stop, upgrade])
@pytest.mark.alone
async def test_nothing_is_lost_and_no_connection_reset(
    world: World, how: Callable[[Host, Path], Awaitable[None]], tmp_path: Path
) -> None:
    objects = compile_vswitch(tmp_path / "objects", MORE_FIELDS)
    here, there = world.hosts
    a, b = await here.vnic(), await there.vnic()
    for vnic, host in ((a, here), (b, there)):
        await host.run(vnic)
        world.set_route(vnic, host)
    await a.guest.ping(b.guest, count=1)
    async with b.guest.serve_http() as url, a.guest.pinger(b.guest, interval=0.001) as pinger:
        await pinger.wait_for_replies(100)
        async with asyncio.TaskGroup() as tasks:
            stream = tasks.create_task(a.guest.iperf3(b.guest, SECONDS))
            page = tasks.create_task(a.guest.curl(f"{url}/drip/{SECONDS}", SECONDS + 10))
            await asyncio.gather(*(how(host, objects) for host in world.hosts))
            await pinger.wait_for_replies(pinger.count().received + 100)
            assert not stream.done(), "the agents took longer than the traffic lasted"
        count = await pinger.stop()
    assert count.lost == 0, count
    assert page.result().status == 200
    assert stream.result().bits_per_second > 0
