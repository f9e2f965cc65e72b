"""Choosing hosts, on a fleet of the module's own."""

import asyncio
from collections import Counter

import pytest
from api.client import Api, Json, fresh, instance, only_error, problem_of
from api.conftest import Controller
from sqlalchemy import delete, select, update

from achelous_controller.store.schema import hosts, instances, vnics


@pytest.fixture
async def subnet(controller: Controller, tenant: Api) -> Json:
    """A subnet, and no host at all."""
    async with controller.engine.begin() as connection:
        await connection.execute(delete(vnics))
        await connection.execute(delete(instances))
        await connection.execute(update(hosts).values(vnic_count=0))
        await connection.execute(delete(hosts))
    return await tenant.subnet(await tenant.vpc())


async def placed(operator: Api) -> Counter[str]:
    """Instances by host."""
    found = await operator.get("/instances", limit=1000)
    return Counter(item["host_id"] for item in found["items"])


async def test_without_a_host_nothing_is_made(tenant: Api, subnet: Json) -> None:
    problem = problem_of(await tenant.post("/instances", instance(subnet)), 409)

    assert "no host has room" in problem["detail"]


async def test_instances_spread_over_the_hosts(operator: Api, tenant: Api, subnet: Json) -> None:
    fleet = [await operator.host() for _ in range(3)]

    for _ in range(4):
        await tenant.instance(subnet)
    batch = {"instances": [instance(subnet) for _ in range(5)]}
    assert (await tenant.post("/instances:batch", batch)).status_code == 201

    assert await placed(operator) == {host["id"]: 3 for host in fleet}


async def test_parallel_requests_respect_capacity_and_use_all_of_it(
    operator: Api, tenant: Api, subnet: Json
) -> None:
    fleet = [await operator.host(capacity) for capacity in (1, 4, 7)]

    replies = await asyncio.gather(
        *(tenant.post("/instances", instance(subnet)) for _ in range(20))
    )

    assert Counter(reply.status_code for reply in replies) == {201: 12, 409: 8}
    assert await placed(operator) == {
        host["id"]: capacity for host, capacity in zip(fleet, (1, 4, 7), strict=True)
    }


async def test_tenants_side_by_side_fill_the_fleet_without_false_refusals(
    operator: Api, subnet: Json
) -> None:
    await operator.host(10)
    await operator.host(10)
    nets = []
    for _ in range(5):
        tenant = await operator.tenant(await operator.project())
        nets.append((tenant, await tenant.subnet(await tenant.vpc())))

    replies = await asyncio.gather(
        *(
            tenant.post("/instances:batch", {"instances": [instance(net), instance(net)]})
            for tenant, net in nets * 2
        )
    )

    assert [reply.status_code for reply in replies] == [201] * 10
    assert sorted((await placed(operator)).values()) == [10, 10]


async def test_a_given_host_that_is_full_is_a_conflict(operator: Api, subnet: Json) -> None:
    full, other = await operator.host(1), await operator.host()
    await operator.instance(subnet, host_id=full["id"])

    error = only_error(await operator.post("/instances", instance(subnet, host_id=full["id"])), 409)

    assert error["field"] == "host_id"
    made = await operator.instance(subnet)
    assert made["host_id"] == other["id"]


async def test_a_deleted_instance_gives_its_room_back(
    operator: Api, tenant: Api, subnet: Json
) -> None:
    await operator.host(1)
    made = await tenant.instance(subnet)
    problem_of(await tenant.post("/instances", instance(subnet)), 409)

    await tenant.delete(f"/instances/{made['id']}")

    await tenant.instance(subnet)


async def test_a_batch_waits_for_hosts_that_others_have_locked(
    controller: Controller, operator: Api, tenant: Api, subnet: Json
) -> None:
    fleet = [await operator.host() for _ in range(2)]
    batch = {"instances": [instance(subnet) for _ in range(4)]}

    async with controller.engine.begin() as connection:
        await connection.execute(select(hosts.c.id).with_for_update())
        asked = asyncio.create_task(tenant.post("/instances:batch", batch))
        await controller.until_somebody_waits()

    assert (await asked).status_code == 201
    assert await placed(operator) == {host["id"]: 2 for host in fleet}


async def test_a_draining_host_keeps_what_it_has_and_takes_no_more(
    operator: Api, tenant: Api, subnet: Json
) -> None:
    empties, other = await operator.host(), await operator.host(2)
    stays = await operator.instance(subnet, host_id=empties["id"])
    path = f"/hosts/{empties['id']}"
    assert (await operator.patch(path, {"draining": True})).json()["draining"]

    made = await operator.make("/instances:batch", instances=[instance(subnet), instance(subnet)])
    assert {one["host_id"] for one in made["instances"]} == {other["id"]}
    problem = problem_of(await tenant.post("/instances", instance(subnet)), 409)
    assert "end the draining" in problem["detail"]
    assert (await operator.get(f"/instances/{stays['id']}"))["host_id"] == empties["id"]

    assert not (await operator.patch(path, {"draining": False})).json()["draining"]
    assert (await operator.instance(subnet))["host_id"] == empties["id"]


async def test_who_names_a_draining_host_is_refused(operator: Api, subnet: Json) -> None:
    empties, other = await operator.host(), await operator.host()
    stays = await operator.instance(subnet, host_id=empties["id"])
    moves = await operator.instance(subnet, host_id=other["id"])
    await operator.patch(f"/hosts/{empties['id']}", {"draining": True})
    named = instance(subnet, host_id=empties["id"])
    to_it = {"host_id": empties["id"]}

    batch = {"instances": [instance(subnet), named]}
    for reply, field in (
        (await operator.post("/instances", named), "host_id"),
        (await operator.post("/instances:batch", batch), "instances[1].host_id"),
        (await operator.patch(f"/instances/{moves['id']}", to_it), "host_id"),
    ):
        error = only_error(reply, 409)
        assert error["field"] == field
        assert "the host is draining" in error["message"]

    reply = await operator.patch(f"/instances/{stays['id']}", to_it)  # where it is already
    assert (reply.status_code, reply.json()["version"]) == (200, stays["version"])
    assert (await operator.patch(f"/hosts/{empties['id']}", {"name": fresh("h")})).json()[
        "draining"
    ]


async def test_creations_beside_the_beginning_of_draining_end_on_one_side_of_it(
    operator: Api, tenant: Api, subnet: Json
) -> None:
    empties, _ = await operator.host(), await operator.host()
    creations = [tenant.post("/instances", instance(subnet)) for _ in range(20)]
    drains = operator.patch(f"/hosts/{empties['id']}", {"draining": True})

    draining, *made = await asyncio.gather(drains, *creations)

    assert [reply.status_code for reply in made] == [201] * 20
    counted = (await operator.get(f"/hosts/{empties['id']}"))["vnic_count"]
    assert counted == (await placed(operator))[empties["id"]]
    await tenant.instance(subnet)
    assert (await placed(operator))[empties["id"]] == counted
    assert draining.json()["draining"]
