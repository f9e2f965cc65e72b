"""Instances become ACTIVE, or say why not, or are gone."""

from collections import Counter

import pytest
from programming_world import World

from achelous_lab.waiting import wait_until
from achelous_shared import subjects
from achelous_shared.bus_roles import Role
from achelous_shared.messages import HostApplied

STAGES = ("committed", "published", "gateways_applied", "host_applied", "active")


@pytest.mark.alone
async def test_a_batch_of_twenty_thousand_becomes_active(idle: World) -> None:
    controller = await idle.add_controller()
    subnet = await idle.subnet()

    await idle.instances(subnet, 20_000)
    took = await idle.until_active(timeout=60)

    print(f"20,000 instances ACTIVE {took:.1f} s after the answer")  # noqa: T201  of pytest -s
    await idle.assert_tables_equal()
    for stage in STAGES:
        count = controller.metric("programming_latency_seconds_count", stage=stage)
        assert count == 20_000, stage


async def test_every_stage_is_told_in_the_instance(world: World) -> None:
    (made,) = await world.instances(await world.subnet(), 1)
    await world.until_active()

    shown = await world.show(made)

    times = [shown[f"{stage}_at"] for stage in ("accepted", "committed", "published")]
    assert times == sorted(times)
    assert max(shown["gateways_applied_at"], shown["host_applied_at"]) <= shown["active_at"]


async def test_what_is_counted_is_what_is_there_in_every_state(idle: World) -> None:
    await idle.add_controller(building_timeout_s=1)
    runs, lacks = idle.hosts
    lacks.devices = False
    subnet = await idle.subnet()
    stays = await idle.instances(subnet, 5, runs)
    await idle.until_active()
    late = await idle.instances(subnet, 3, lacks)
    await idle.until_states({"ACTIVE", "ERROR"})
    runs.mute = lacks.mute = True  # what changes from now on stays as it is
    await idle.delete([*stays[:2], late[0]])
    await idle.instances(subnet, 1, runs)

    before = await idle.states()
    counted = await idle.api.get("/status")

    while before != await idle.states():  # the one that builds became late meanwhile
        before = await idle.states()
        counted = await idle.api.get("/status")
    assert Counter(counted["instances"]) == before
    assert (before["ACTIVE"], before["DELETING"], before["BUILDING"] + before["ERROR"]) == (3, 3, 3)
    expected = {"projects": 1, "vpcs": 1, "vnics": 9, "hosts": 2, "gateways": 2}
    assert counted["objects"] == expected


async def test_a_lost_host_document_is_published_again(world: World) -> None:
    subnet = await world.subnet()
    await wait_until(lambda: world.hosts[0].fleet is not None, "the host to follow")
    world.hosts[0].lose = 1

    await world.instances(subnet, 1, world.hosts[0])

    await world.until_active(timeout=15)


@pytest.mark.parametrize("what", ["silent", "no device", "failed", "deaf gateway", "no gateway"])
async def test_a_late_instance_is_in_error_says_why_and_converges(idle: World, what: str) -> None:
    host, gateway = idle.hosts[0], idle.gateways[0]
    await idle.add_controller(building_timeout_s=1)
    subnet = await idle.subnet()
    reasons = {
        "silent": "has not reported",
        "no device": "has not appeared on host",
        "failed": "no such thing",
        "deaf gateway": f"gateway {gateway.name} is behind",
        "no gateway": "no gateway is live",
    }
    match what:
        case "silent":
            host.mute = True
        case "no device":
            host.devices = False
        case "failed":
            host.failing = "no such thing"
        case "deaf gateway":
            gateway.deaf = True
        case _:
            for one in idle.gateways:
                one.mute = True

    (made,) = await idle.instances(subnet, 1, host)
    shown = await idle.until_reason(made, reasons[what], timeout=15)
    assert shown["state"] == "ERROR"

    host.mute, host.devices, host.failing, gateway.deaf = False, True, None, False
    for one in idle.gateways:
        one.mute = False
        one.moved()
    host.moved()
    await idle.until_active(timeout=15)
    assert (await idle.show(made))["reason"] is None


async def test_a_deleted_instance_is_gone_and_its_address_free(world: World) -> None:
    subnet = await world.subnet("10.0.0.0/30")  # one address beside the router's
    (first,) = await world.instances(subnet, 1)
    await world.until_active()

    await world.delete([first])
    await world.until_states(set())

    (second,) = await world.instances(subnet, 1)
    await world.until_active()
    assert (await world.show(second))["vnics"][0]["ip"] == "10.0.0.2"
    await world.assert_tables_equal()


async def test_garbage_in_place_of_a_report_changes_nothing(idle: World) -> None:
    controller = await idle.add_controller()
    observer = await idle.bus(Role.OBSERVER)
    for number, host in enumerate(idle.hosts):
        unknown = HostApplied(
            v=99, host_id=host.id, revision=10**6, fleet_revision=1, waiting=(), failed={}, at=0
        )
        await observer.publish(subjects.host_applied(host.id), unknown)
        await observer.publish(subjects.gateway_applied(idle.gateways[number].id), unknown)

    for subject in (subjects.ALL_HOSTS_APPLIED, subjects.ALL_GATEWAYS_APPLIED):
        await wait_until(
            lambda subject=subject: (  # type: ignore[misc]
                controller.metric("programming_bad_messages_total", subject=subject) == 2
            ),
            f"bad reports on {subject} to be counted",
        )
    await idle.instances(await idle.subnet(), 2)
    await idle.until_active()
