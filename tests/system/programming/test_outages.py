"""Bus and database go away and come back: nothing that was accepted is lost."""

import shutil
import signal

import pytest
from programming_world import World, stored_streams, world_in

from achelous_lab.rundir import RunDir
from achelous_lab.servers.postgres import PostgresServer
from achelous_lab.waiting import wait_until


async def test_what_is_asked_for_while_the_bus_is_down_follows(world: World) -> None:
    subnet = await world.subnet()
    await world.instances(subnet, 2)
    await world.until_active()

    await world.nats.kill9()
    await world.instances(subnet, 20)
    await world.nats.start()

    await world.until_active(timeout=30)
    await world.assert_tables_equal()


async def test_what_a_bus_takes_and_does_not_acknowledge_in_time_comes_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    subnet = await world.subnet()
    await world.instances(subnet, 2)
    await world.until_active()

    world.nats.process.send_signal(signal.SIGSTOP)
    try:
        await world.instances(subnet, 20)
        await wait_until(lambda: "were not taken" in caplog.text, "the leader to give up once")
    finally:
        world.nats.process.send_signal(signal.SIGCONT)

    await world.until_active(timeout=30)
    await world.assert_tables_equal()
    for gateway in world.gateways:
        [deltas] = gateway.received.values()
        assert [(delta.base, delta.revision) for delta in deltas] == [(0, 1), (1, 2)]
        assert gateway.snapshots == 0


async def test_a_bus_that_lost_its_streams_gets_all_documents_again(world: World) -> None:
    subnet = await world.subnet()
    await world.instances(subnet, 4)
    await world.until_active()
    await world.nats.kill9()
    shutil.rmtree(stored_streams(world.nats))
    for host in world.hosts:
        host.document = host.fleet = None

    await world.nats.start()

    await wait_until(
        lambda: all(host.document and host.fleet for host in world.hosts),
        "every host to have its documents again",
        timeout=30,
    )
    await world.instances(subnet, 4)
    await world.until_active(timeout=30)
    await world.assert_tables_equal()


async def test_an_outage_of_the_database_is_waited_out(run_dir: RunDir) -> None:
    async with (
        PostgresServer(run_dir.subdir("pg"), fsync=False) as postgres,
        world_in(postgres, run_dir) as world,
    ):
        await world.add_gateway()
        await world.add_host()
        controller = await world.add_controller()
        subnet = await world.subnet()
        await world.instances(subnet, 50)

        await postgres.kill9()
        await wait_until(lambda: not controller.leading, "the leader to notice")
        await postgres.start()

        await wait_until(lambda: controller.leading, "it to lead again")
        await world.until_active(timeout=30)
        await world.instances(subnet, 5)
        await world.until_active()
        await world.assert_tables_equal()
