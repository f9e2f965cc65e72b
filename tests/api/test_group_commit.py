"""Single creations and deletions that come at once share transactions, and nobody can tell."""

import asyncio
from collections import Counter
from uuid import UUID

from api.client import Api, fresh, instance, only_error, problem_of
from api.conftest import Controller
from sqlalchemy import func, select

from achelous_controller.store import idempotency
from achelous_controller.store.schema import outbox


async def test_creations_at_once_share_a_revision_and_an_outbox_row(
    controller: Controller, operator: Api, tenant: Api
) -> None:
    await operator.host()
    vpc = await tenant.vpc()
    subnet = await tenant.subnet(vpc, "10.0.0.0/16")

    replies = await asyncio.gather(
        *(tenant.post("/instances", instance(subnet)) for _ in range(100))
    )

    assert Counter(reply.status_code for reply in replies) == {201: 100}
    assert len({reply.json()["vnics"][0]["ip"] for reply in replies}) == 100
    revision = (await tenant.get(f"/vpcs/{vpc['id']}"))["revision"]
    assert revision < 100
    of_vpc = select(func.count()).where(outbox.c.kind == "routes", outbox.c.vni == vpc["vni"])
    async with controller.engine.connect() as connection:
        assert (await connection.execute(of_vpc)).scalar_one() == revision


async def test_a_refused_one_among_many_fails_alone_with_its_own_error(
    operator: Api, tenant: Api
) -> None:
    await operator.host()
    subnet = await tenant.subnet(await tenant.vpc(), "10.0.0.0/16")
    bodies = [instance(subnet) for _ in range(30)]
    bodies[7] = instance(subnet, ip="10.0.0.1")
    bodies[21] = instance(subnet, ip="192.168.0.1")

    replies = await asyncio.gather(*(tenant.post("/instances", body) for body in bodies))

    assert [n for n, reply in enumerate(replies) if reply.status_code != 201] == [7, 21]
    for number in (7, 21):
        error = only_error(replies[number], 422)
        assert error["field"] == "vnics[0].ip"
        assert error["value"] == bodies[number]["vnics"][0]["ip"]


async def test_one_address_asked_for_by_many_at_once_is_one_instances(
    operator: Api, tenant: Api
) -> None:
    await operator.host()
    subnet = await tenant.subnet(await tenant.vpc(), "10.0.0.0/16")

    replies = await asyncio.gather(
        *(tenant.post("/instances", instance(subnet, ip="10.0.3.3")) for _ in range(9))
    )

    assert Counter(reply.status_code for reply in replies) == {201: 1, 409: 8}


async def test_a_quota_ends_creations_at_once_where_it_ends_those_one_by_one(operator: Api) -> None:
    await operator.host()
    tenant = await operator.tenant(await operator.project(instances=11))
    subnet = await tenant.subnet(await tenant.vpc())

    replies = await asyncio.gather(
        *(tenant.post("/instances", instance(subnet)) for _ in range(40))
    )

    assert Counter(reply.status_code for reply in replies) == {201: 11, 409: 29}
    assert all(
        reply.json()["quota"]["quota"] == 11 for reply in replies if reply.status_code == 409
    )


async def test_creations_with_keys_at_once_are_each_carried_out_once(
    operator: Api, tenant: Api
) -> None:
    await operator.host()
    subnet = await tenant.subnet(await tenant.vpc(), "10.0.0.0/16")
    orders = [(instance(subnet), {"Idempotency-Key": fresh("key")}) for _ in range(20)]

    first = await asyncio.gather(
        *(tenant.post("/instances", body, headers=key) for body, key in orders)
    )
    again = await asyncio.gather(
        *(tenant.post("/instances", body, headers=key) for body, key in orders)
    )

    assert [reply.json() for reply in again] == [reply.json() for reply in first]
    assert [reply.headers["etag"] for reply in again] == ['"1"'] * 20


async def test_a_key_that_stays_locked_ends_in_an_error_and_makes_nothing(
    controller: Controller, operator: Api
) -> None:
    """By a request with it that another controller does not come to an end with, for instance."""
    await operator.host()
    project = await operator.project()
    token = await operator.make("/tokens", name=fresh("token"), project_id=project["id"])
    tenant = operator.with_token(token["token"])
    subnet = await tenant.subnet(await tenant.vpc())
    body, key = instance(subnet), {"Idempotency-Key": fresh("key")}
    paths = {"/instances": body, "/instances:batch": {"instances": [body]}}
    held = idempotency.Claim(UUID(token["id"]), key["Idempotency-Key"], b"")

    async with controller.services.database.write(*idempotency.locking([held])):
        replies = await asyncio.gather(
            *(tenant.post(path, what, headers=key) for path, what in paths.items())
        )

    for reply in replies:
        assert "changed nothing" in problem_of(reply, 503)["detail"]
    assert (await tenant.get("/instances"))["items"] == []
    assert (await tenant.post("/instances", body, headers=key)).status_code == 201


async def test_deletions_at_once_keep_their_preconditions(operator: Api, tenant: Api) -> None:
    await operator.host()
    subnet = await tenant.subnet(await tenant.vpc())
    made = [await tenant.instance(subnet) for _ in range(8)]
    paths = [f"/instances/{one['id']}" for one in made]

    replies = await asyncio.gather(
        *(tenant.delete(path, headers={"If-Match": '"1"'}) for path in paths[:5]),
        *(tenant.delete(path, headers={"If-Match": '"9"'}) for path in paths[5:]),
        tenant.delete(paths[0]),
    )

    assert [reply.status_code for reply in replies] == [202] * 5 + [412] * 3 + [202]
    states = [(await tenant.get(path))["state"] for path in paths]
    assert states == ["DELETING"] * 5 + ["BUILDING"] * 3
    assert replies[-1].json()["version"] == 2  # deleting again changes nothing


async def test_another_projects_instance_is_not_found_among_own_ones(operator: Api) -> None:
    await operator.host()
    mine, theirs = [await operator.tenant(await operator.project()) for _ in range(2)]
    own = [await mine.instance(await mine.subnet(await mine.vpc())) for _ in range(3)]
    foreign = await theirs.instance(await theirs.subnet(await theirs.vpc()))

    replies = await asyncio.gather(
        *(mine.delete(f"/instances/{one['id']}") for one in [*own, foreign])
    )

    assert [reply.status_code for reply in replies] == [202, 202, 202, 404]
    assert (await theirs.get(f"/instances/{foreign['id']}"))["state"] == "BUILDING"
