"""Instances by the batch, and many requests at once."""

import asyncio
from collections import Counter

import pytest
from api.client import Api, Json, fresh, instance, only_error, problem_of
from api.conftest import Controller
from sqlalchemy import func, select

from achelous_controller.store.schema import hosts, outbox, vnics, vpcs
from achelous_shared.routes import MAX_DELTA_ENTRIES, unpack


@pytest.fixture
async def host(operator: Api) -> Json:
    return await operator.host()


@pytest.fixture
async def subnet(tenant: Api, host: Json) -> Json:
    """10.0.0.0/16 of a VPC of the test's own, and a host to run on."""
    return await tenant.subnet(await tenant.vpc(), "10.0.0.0/16")


async def test_twenty_thousand_instances_are_made_in_one_call(
    controller: Controller, tenant: Api, subnet: Json
) -> None:
    body = {"instances": [instance(subnet) for _ in range(20_000)]}
    reply = await tenant.post("/instances:batch", body)

    assert reply.status_code == 201
    made = reply.json()["instances"]
    assert [one["name"] for one in made] == [one["name"] for one in body["instances"]]
    assert len({one["vnics"][0]["ip"] for one in made}) == 20_000
    assert len({one["vnics"][0]["mac"] for one in made}) == 20_000
    assert await tenant.get(f"/instances/{made[-1]['id']}") == made[-1]
    async with controller.engine.connect() as connection:
        vpc = (await connection.execute(select(vpcs).where(vpcs.c.vni == vnis(made)))).one()
        query = select(outbox).where(outbox.c.vni == vpc.vni).order_by(outbox.c.revision)
        deltas = (await connection.execute(query)).all()
        stored = select(vnics.c.revision, func.count().label("vnics")).group_by(vnics.c.revision)
        revisions = await connection.execute(stored.where(vnics.c.vpc_id == vpc.id))
        by_revision = {row.revision: row.vnics for row in revisions}
    assert vpc.revision == len(deltas) == 3
    assert [(row.base, row.revision) for row in deltas] == [(0, 1), (1, 2), (2, 3)]
    sizes = [len(unpack(row.entries)) for row in deltas]
    assert sizes == [MAX_DELTA_ENTRIES, MAX_DELTA_ENTRIES, 20_000 - 2 * MAX_DELTA_ENTRIES]
    assert by_revision == {row.revision: size for row, size in zip(deltas, sizes, strict=True)}


def vnis(made: list[Json]) -> object:
    return select(vnics.c.vni).where(vnics.c.id == made[0]["vnics"][0]["id"]).scalar_subquery()


async def test_one_more_is_refused(tenant: Api, subnet: Json) -> None:
    body = {"instances": [instance(subnet)] * 20_001}

    error = only_error(await tenant.post("/instances:batch", body), 422)

    assert error["field"] == "instances"
    assert "20000" in error["message"]
    problem_of(await tenant.post("/instances:batch", {"instances": []}), 422)


@pytest.mark.parametrize(
    ("wrong", "status", "field"),
    [
        ({"ip": "10.0.0.1"}, 422, "instances[2].vnics[0].ip"),
        ({"ip": "10.1.0.1"}, 422, "instances[2].vnics[0].ip"),
        ({"ip": "10.0.0.9"}, 409, "instances[2].vnics[0].ip"),
        ({"ip": "10.0.0.300"}, 422, "instances[2].vnics[0].ip"),
        ({"kind": "robot"}, 422, "instances[2].kind"),
    ],
)
async def test_one_wrong_instance_refuses_the_batch_and_is_named(
    tenant: Api, subnet: Json, wrong: Json, status: int, field: str
) -> None:
    await tenant.instance(subnet, ip="10.0.0.9")
    good = [instance(subnet) for _ in range(4)]
    batch = [*good[:2], instance(subnet, **wrong), *good[2:]]

    error = only_error(await tenant.post("/instances:batch", {"instances": batch}), status)

    assert error["field"] == field
    assert len((await tenant.get("/instances"))["items"]) == 1


async def test_given_and_chosen_addresses_of_a_batch_do_not_meet(tenant: Api, host: Json) -> None:
    subnet = await tenant.subnet(await tenant.vpc(), "10.0.0.0/28")
    batch = [instance(subnet) for _ in range(10)]
    batch += [instance(subnet, ip=f"10.0.0.{number}") for number in (2, 5, 14)]

    reply = await tenant.post("/instances:batch", {"instances": batch})

    ips = [one["vnics"][0]["ip"] for one in reply.json()["instances"]]
    assert sorted(ips) == sorted(f"10.0.0.{number}" for number in range(2, 15))
    assert ips[10:] == ["10.0.0.2", "10.0.0.5", "10.0.0.14"]


async def test_a_batch_larger_than_the_subnet_takes_nothing_of_it(tenant: Api, host: Json) -> None:
    subnet = await tenant.subnet(await tenant.vpc(), "10.0.0.0/28")
    batch = [instance(subnet) for _ in range(14)]

    error = only_error(await tenant.post("/instances:batch", {"instances": batch}), 409)

    assert "13 free addresses" in error["message"]
    reply = await tenant.post("/instances:batch", {"instances": batch[:13]})
    assert reply.status_code == 201


async def test_a_batch_over_several_vpcs_is_one_transaction(tenant: Api, host: Json) -> None:
    nets = [await tenant.subnet(await tenant.vpc()) for _ in range(3)]
    batch = [instance(nets[number % 3]) for number in range(9)]

    reply = await tenant.post("/instances:batch", {"instances": batch})

    assert reply.status_code == 201
    for net in nets:
        assert (await tenant.get(f"/vpcs/{net['vpc_id']}"))["revision"] == 1
    batch.append(instance(nets[0], ip="10.0.0.1"))
    problem_of(await tenant.post("/instances:batch", {"instances": batch}), 422)
    for net in nets:
        assert (await tenant.get(f"/vpcs/{net['vpc_id']}"))["revision"] == 1


async def test_a_repeated_batch_is_answered_with_the_same_instances(
    tenant: Api, subnet: Json
) -> None:
    body = {"instances": [instance(subnet) for _ in range(500)]}
    key = {"Idempotency-Key": fresh("key")}

    first = await tenant.post("/instances:batch", body, headers=key)
    second = await tenant.post("/instances:batch", body, headers=key)

    assert first.content == second.content
    assert len((await tenant.get("/instances", limit=1000))["items"]) == 500


# ---- at once -------------------------------------------------------------------------------------


async def test_parallel_requests_share_a_small_subnet_without_loss(tenant: Api, host: Json) -> None:
    subnet = await tenant.subnet(await tenant.vpc(), "10.0.0.0/28")

    replies = await asyncio.gather(
        *(tenant.post("/instances", instance(subnet)) for _ in range(50))
    )

    made = [reply.json() for reply in replies if reply.status_code == 201]
    assert Counter(reply.status_code for reply in replies) == {201: 13, 409: 37}
    assert {one["vnics"][0]["ip"] for one in made} == {f"10.0.0.{n}" for n in range(2, 15)}
    vpc = await tenant.get(f"/vpcs/{subnet['vpc_id']}")
    assert 1 <= vpc["revision"] <= 13  # those that come together share one


async def test_creations_and_deletions_at_once_leave_the_counts_right(
    controller: Controller, operator: Api, tenant: Api, subnet: Json
) -> None:
    other = await tenant.subnet(await tenant.vpc())

    async def live_and_die(number: int) -> None:
        net = (subnet, other)[number % 2]
        made = await tenant.instance(net)
        if number % 3:
            await tenant.delete(f"/instances/{made['id']}")
        rules = f"/security-groups/{made['vnics'][0]['security_group_ids'][0]}/rules"
        await tenant.make(rules, direction="ingress", protocol="tcp", port_min=number)

    await asyncio.gather(*(live_and_die(number) for number in range(24)))

    usage = (await tenant.get(f"/projects/{subnet['project_id']}/usage"))["used"]
    assert (usage["instances"], usage["vnics"]) == (8, 8)
    async with controller.engine.connect() as connection:
        query = (
            select(hosts.c.vnic_count, func.count(vnics.c.id).label("live"))
            .outerjoin(vnics, (vnics.c.host_id == hosts.c.id) & ~vnics.c.withdrawn)
            .group_by(hosts.c.id)
        )
        assert all(row.vnic_count == row.live for row in await connection.execute(query))
