"""Instances that operators give another host, and what the data plane is told of it."""

import asyncio
from collections import Counter
from ipaddress import IPv4Address
from uuid import UUID, uuid4

import httpx
import pytest
from api.client import Api, Json, instance, only_error, problem_of
from api.conftest import Controller
from sqlalchemy import delete, select

from achelous_controller.store.schema import hosts, outbox, vnics
from achelous_shared.routes import RouteOp, ip_of, unpack


@pytest.fixture
async def fleet(operator: Api) -> list[Json]:
    """Three hosts."""
    return [await operator.host() for _ in range(3)]


@pytest.fixture
async def subnet(tenant: Api) -> Json:
    return await tenant.subnet(await tenant.vpc(), "10.0.0.0/16", cidr6="fd00:1::/64")


async def moved(operator: Api, made: Json, host: Json, **how: object) -> httpx.Response:
    """The reply to the request that an instance runs on a host."""
    return await operator.patch(f"/instances/{made['id']}", {"host_id": host["id"]}, **how)


async def counts(operator: Api, fleet: list[Json]) -> list[int]:
    """vNICs of each host."""
    return [(await operator.get(f"/hosts/{host['id']}"))["vnic_count"] for host in fleet]


async def assert_counted(controller: Controller) -> None:
    """Every host's count is the number of vNICs that it has."""
    async with controller.engine.connect() as connection:
        query = select(hosts.c.id, hosts.c.vnic_count).where(hosts.c.vnic_count > 0)
        counted = {row.id: row.vnic_count for row in await connection.execute(query)}
        held = await connection.execute(select(vnics.c.host_id).where(~vnics.c.withdrawn))
    assert counted == Counter(held.scalars())


async def test_a_moved_instance_builds_on_its_new_host(
    operator: Api, tenant: Api, fleet: list[Json], subnet: Json
) -> None:
    old, new, _ = fleet
    made = await operator.instance(subnet, host_id=old["id"])

    reply = await moved(operator, made, new)

    assert reply.status_code == 200
    shown = reply.json()
    assert (shown["host_id"], shown["state"], shown["version"]) == (new["id"], "BUILDING", 2)
    assert shown["accepted_at"] > made["accepted_at"]
    vnic = made["vnics"][0]
    assert shown["vnics"] == [vnic | {"version": vnic["version"] + 1}]
    assert reply.headers["etag"] == '"2"'
    assert await operator.get(f"/instances/{made['id']}") == shown
    assert (await tenant.get(f"/instances/{made['id']}"))["host_id"] is None
    assert await counts(operator, fleet) == [0, 1, 0]


async def test_gateways_and_both_hosts_are_told(
    controller: Controller, operator: Api, fleet: list[Json], subnet: Json
) -> None:
    old, new, _ = fleet
    made = await operator.instance(subnet, host_id=old["id"])
    async with controller.engine.begin() as connection:
        await connection.execute(delete(outbox))

    await moved(operator, made, new)

    async with controller.engine.connect() as connection:
        rows = (await connection.execute(select(outbox).order_by(outbox.c.kind))).all()
        query = select(vnics).where(vnics.c.instance_id == UUID(made["id"]))
        row = (await connection.execute(query)).one()
    *documents, routes = rows
    vnic = made["vnics"][0]
    table = unpack(routes.entries)
    assert {str(ip_of(ip.tobytes())) for ip in table["ip"]} == {vnic["ip"], vnic["ip6"]}
    assert {str(IPv4Address(int(vtep))) for vtep in table["vtep"]} == {new["vtep"]}
    assert set(table["op"]) == {RouteOp.UPSERT}
    assert set(table["revision"]) == {routes.revision} == {row.revision}
    assert routes.base == routes.revision - 1
    told = {str(document.host_id): UUID(bytes=document.vnics) for document in documents}
    assert told == dict.fromkeys((old["id"], new["id"]), UUID(vnic["id"]))
    assert str(row.host_id) == new["id"]


async def test_a_host_that_was_left_can_be_removed(
    operator: Api, fleet: list[Json], subnet: Json
) -> None:
    old, new, _ = fleet
    made = await operator.instance(subnet, host_id=old["id"])
    problem_of(await operator.delete(f"/hosts/{old['id']}"), 409)

    await moved(operator, made, new)

    assert (await operator.delete(f"/hosts/{old['id']}")).status_code == 204
    problem_of(await operator.delete(f"/hosts/{new['id']}"), 409)


async def test_moving_an_instance_to_where_it_is_changes_nothing(
    controller: Controller, operator: Api, fleet: list[Json], subnet: Json
) -> None:
    made = await operator.instance(subnet, host_id=fleet[0]["id"])
    async with controller.engine.begin() as connection:
        await connection.execute(delete(outbox))

    reply = await moved(operator, made, fleet[0])

    assert (reply.status_code, reply.json()) == (200, made)
    async with controller.engine.connect() as connection:
        assert (await connection.execute(select(outbox))).all() == []


async def test_only_operators_move(tenant: Api, fleet: list[Json], subnet: Json) -> None:
    made = await tenant.instance(subnet)

    error = only_error(await moved(tenant, made, fleet[0]), 403)

    assert error["field"] == "host_id"
    assert await tenant.get(f"/instances/{made['id']}") == made


async def test_a_move_that_cannot_be_is_refused_and_changes_nothing(
    operator: Api, fleet: list[Json], subnet: Json
) -> None:
    old, new, _ = fleet
    full = await operator.host(1)
    await operator.instance(subnet, host_id=full["id"])
    made = await operator.instance(subnet, host_id=old["id"])
    nowhere = {"id": str(uuid4())}

    error = only_error(await moved(operator, made, full), 409)
    assert (error["field"], error["value"]) == ("host_id", full["id"])
    assert "its capacity is 1" in error["message"]
    assert only_error(await moved(operator, made, nowhere), 422)["field"] == "host_id"
    problem_of(await moved(operator, nowhere, new), 404)
    problem_of(await moved(operator, made, new, headers={"If-Match": '"7"'}), 412)
    both = {"host_id": new["id"], "name": "other"}
    error = only_error(await operator.patch(f"/instances/{made['id']}", both), 422)
    assert "one at a time" in error["message"]

    assert await operator.get(f"/instances/{made['id']}") == made
    assert await counts(operator, [*fleet, full]) == [1, 0, 0, 1]


async def test_an_instance_that_is_being_deleted_stays_where_it_is(
    operator: Api, fleet: list[Json], subnet: Json
) -> None:
    old, new, _ = fleet
    made = await operator.instance(subnet, host_id=old["id"])
    await operator.delete(f"/instances/{made['id']}")

    assert "being deleted" in problem_of(await moved(operator, made, new), 409)["detail"]


async def test_moves_at_once_share_a_revision(
    controller: Controller, operator: Api, fleet: list[Json], subnet: Json
) -> None:
    old, new, _ = fleet
    bodies = [instance(subnet, host_id=old["id"]) for _ in range(60)]
    made = (await operator.post("/instances:batch", {"instances": bodies})).json()["instances"]
    before = (await operator.get(f"/vpcs/{subnet['vpc_id']}"))["revision"]

    replies = await asyncio.gather(*(moved(operator, one, new) for one in made))

    assert Counter(reply.status_code for reply in replies) == {200: 60}
    assert (await operator.get(f"/vpcs/{subnet['vpc_id']}"))["revision"] < before + 10
    assert await counts(operator, fleet) == [0, 60, 0]
    await assert_counted(controller)


async def test_moves_at_once_use_all_room_and_no_more(
    controller: Controller, operator: Api, fleet: list[Json], subnet: Json
) -> None:
    small = await operator.host(5)
    made = [await operator.instance(subnet, host_id=fleet[0]["id"]) for _ in range(12)]

    replies = await asyncio.gather(*(moved(operator, one, small) for one in made))

    assert Counter(reply.status_code for reply in replies) == {200: 5, 409: 7}
    assert await counts(operator, [fleet[0], small]) == [7, 5]
    await assert_counted(controller)


async def test_room_that_a_move_gives_back_is_there_for_the_next(
    operator: Api, subnet: Json
) -> None:
    a, b = [await operator.host(1) for _ in range(2)]
    spare = await operator.host()
    on_a, on_b = [await operator.instance(subnet, host_id=host["id"]) for host in (a, b)]

    replies = await asyncio.gather(moved(operator, on_b, spare), moved(operator, on_a, b))

    assert [reply.status_code for reply in replies] == [200, 200]
    assert await counts(operator, [a, b, spare]) == [0, 1, 1]


async def test_moves_of_one_instance_at_once_are_carried_out_one_by_one(
    controller: Controller, operator: Api, fleet: list[Json], subnet: Json
) -> None:
    made = await operator.instance(subnet, host_id=fleet[0]["id"])

    replies = await asyncio.gather(*(moved(operator, made, host) for host in fleet[1:] * 5))

    assert {reply.status_code for reply in replies} == {200}
    assert max(reply.json()["version"] for reply in replies) == 11
    shown = await operator.get(f"/instances/{made['id']}")
    last = max(replies, key=lambda reply: int(reply.json()["version"])).json()
    assert shown == last
    await assert_counted(controller)


async def test_one_version_is_moved_once(operator: Api, fleet: list[Json], subnet: Json) -> None:
    made = await operator.instance(subnet, host_id=fleet[0]["id"])
    seen = {"headers": {"If-Match": '"1"'}}

    replies = await asyncio.gather(*(moved(operator, made, host, **seen) for host in fleet[1:]))

    assert sorted(reply.status_code for reply in replies) == [200, 412]


async def test_a_deletion_beside_moves_ends_the_instance_and_gives_all_room_back(
    controller: Controller, operator: Api, tenant: Api, fleet: list[Json], subnet: Json
) -> None:
    made = [await operator.instance(subnet, host_id=fleet[0]["id"]) for _ in range(10)]

    replies = await asyncio.gather(
        *(moved(operator, one, fleet[1]) for one in made),
        *(tenant.delete(f"/instances/{one['id']}") for one in made),
        *(moved(operator, one, fleet[2]) for one in made),
    )

    assert {reply.status_code for reply in replies} <= {200, 202, 409}
    states = {(await tenant.get(f"/instances/{one['id']}"))["state"] for one in made}
    assert states == {"DELETING"}
    assert await counts(operator, fleet) == [0, 0, 0]
    await assert_counted(controller)


async def test_creations_beside_moves_keep_the_capacity(
    controller: Controller, operator: Api, tenant: Api, fleet: list[Json], subnet: Json
) -> None:
    small = await operator.host(8)
    made = [await operator.instance(subnet, host_id=fleet[0]["id"]) for _ in range(10)]

    replies = await asyncio.gather(
        *(moved(operator, one, small) for one in made),
        *(operator.post("/instances", instance(subnet, host_id=small["id"])) for _ in range(10)),
    )

    assert Counter(reply.is_success for reply in replies)[True] == 8
    assert await counts(operator, [small]) == [8]
    await assert_counted(controller)
