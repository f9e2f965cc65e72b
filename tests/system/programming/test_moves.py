"""Instances that are given another host: ACTIVE there, whatever the old one says or does not."""

import asyncio

from programming_fakes import FakeHost
from programming_world import World

from achelous_controller.programming import records
from achelous_controller.programming.connections import session
from achelous_lab.waiting import wait_until


async def move(world: World, instance_id: str, host: FakeHost) -> None:
    reply = await world.api.patch(f"/instances/{instance_id}", {"host_id": str(host.id)})
    assert reply.status_code == 200, reply.text


def runs(host: FakeHost) -> set[str]:
    """Instances with a port in the document that the host has."""
    return {str(port.instance_id) for port in host.document.ports} if host.document else set()


async def test_a_moved_instance_is_active_again_on_its_new_host_alone(world: World) -> None:
    old, new = world.hosts
    (made,) = await world.instances(await world.subnet(), 1, old)
    await world.until_active()
    before = await world.show(made)

    await move(world, made, new)
    await world.until_active()

    shown = await world.show(made)
    assert shown["host_id"] == str(new.id)
    assert shown["active_at"] > before["active_at"]
    assert made in runs(new)
    await wait_until(lambda: made not in runs(old), "the old host to let go")
    await world.assert_tables_equal()


async def test_an_old_host_s_report_does_not_make_it_active(idle: World) -> None:
    await idle.add_controller(building_timeout_s=1)
    old, new = idle.hosts
    (made,) = await idle.instances(await idle.subnet(), 1, old)
    await idle.until_active()
    new.devices = False

    await move(idle, made, new)

    # both hosts' documents are at the same revision, and the old one goes on to report it
    shown = await idle.until_reason(made, f"has not appeared on host {new.name}")
    assert shown["state"] == "ERROR"
    old.moved()
    new.devices = True
    new.moved()
    await idle.until_active()


async def test_an_instance_that_waits_for_a_dead_host_is_moved_away_from_it(idle: World) -> None:
    await idle.add_controller(building_timeout_s=1)
    old, new = idle.hosts
    old.mute = True
    (made,) = await idle.instances(await idle.subnet(), 1, old)
    await idle.until_reason(made, "silent")

    await move(idle, made, new)
    await idle.until_active()

    assert (await idle.show(made))["reason"] is None


async def test_what_the_old_host_finished_is_not_taken_for_the_new_one_s(idle: World) -> None:
    old, new = idle.hosts
    (made,) = await idle.instances(await idle.subnet(), 1, old)
    async with session(idle.engine, "test", records.SESSION) as connection:
        (before,) = await records.load(connection, list(await records.sizes(connection)))

        await move(idle, made, new)

        (after,) = await records.load(connection, list(await records.sizes(connection)))
        assert after.cohort.host_revision == before.cohort.host_revision  # of different hosts
        assert after.change != before.change
        assert await records.activate(connection, [before], 1.0) == {}
        await records.note_overdue(connection, [(before, "late")])
        assert await records.activate(connection, [after], 1.0) == {after.change: 1}
    shown = await idle.show(made)
    assert (shown["state"], shown["reason"]) == ("ACTIVE", None)


async def test_moves_back_and_forth_beside_deletions_leave_equal_tables(world: World) -> None:
    old, new = world.hosts
    made = await world.instances(await world.subnet(), 40, old)
    await world.until_active()

    for target in (new, old, new):
        await asyncio.gather(*(move(world, one, target) for one in made[:30]))
    await asyncio.gather(*(move(world, one, new) for one in made[30:35]), world.delete(made[10:20]))
    await world.until_active()

    left = {*made[:10], *made[20:30], *made[30:35]}
    await wait_until(lambda: runs(new) == left, "the new host to run them")
    await wait_until(lambda: runs(old) == set(made[35:]), "the old host to run the rest")
    await world.assert_tables_equal()


async def test_a_leader_that_starts_anew_finishes_a_move(idle: World) -> None:
    old, new = idle.hosts
    first = await idle.add_controller()
    (made,) = await idle.instances(await idle.subnet(), 1, old)
    await idle.until_active()
    await first.crash()

    await move(idle, made, new)
    await idle.add_controller()

    await idle.until_active()
    assert runs(new) == {made}
    await idle.assert_tables_equal()
