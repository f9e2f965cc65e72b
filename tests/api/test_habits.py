"""What holds for every resource: problems, ETags, pages, filters, keys."""

import asyncio
import base64
from datetime import timedelta
from ipaddress import IPv4Address
from uuid import uuid4

import httpx
import pytest
from api.client import Api, Json, fresh, instance, only_error, problem_of
from api.conftest import Controller
from prometheus_client import CollectorRegistry
from sqlalchemy import func, select, update

from achelous_controller.app import create_app
from achelous_controller.store import idempotency
from achelous_controller.store.schema import idempotency_keys


async def test_an_unknown_path_and_method_are_problems(operator: Api) -> None:
    problem = problem_of(await operator.request("GET", "/nothing"), 404)
    assert problem["instance"] == "/v1/nothing"

    reply = await operator.request("PUT", "/vpcs")
    problem_of(reply, 405)
    assert set(reply.headers["allow"].split(", ")) <= {"GET", "POST"}
    problem_of(await operator.http.get("/nothing"), 404)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "x" * 64}, "name"),
        ({"name": 7}, "name"),
        ({"name": "a\x00"}, "name"),
        ({"name": "ok", "color": "red"}, "color"),
        ({"name": "ok", "quotas": {"vpcs": -1}}, "quotas.vpcs"),
    ],
)
async def test_a_wrong_field_is_named_with_its_value(operator: Api, body: Json, field: str) -> None:
    reply = await operator.post("/projects", body)

    error = only_error(reply, 422)
    assert error["field"] == field
    assert error["message"]
    problem_of(reply, 422)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"text"', b"\xff", b"[" * 5000])
async def test_a_body_that_is_no_object_is_a_problem(operator: Api, content: bytes) -> None:
    reply = await operator.request(
        "POST", "/vpcs", content=content, headers={"Content-Type": "application/json"}
    )

    assert reply.status_code in (400, 422)
    problem_of(reply, reply.status_code)


async def test_a_body_that_is_no_json_is_shown_with_the_place(operator: Api) -> None:
    headers = {"Content-Type": "application/json"}
    reply = await operator.request("POST", "/vpcs", content=b'{"name": v}', headers=headers)

    error = only_error(reply, 422)
    assert (error["field"], error["value"]) == ("body", '{"name": v}')
    assert "from character 9 on" in error["message"]


async def test_a_long_value_is_cut_short_in_the_error(operator: Api) -> None:
    error = only_error(await operator.post("/projects", {"name": "x" * 100_000}), 422)

    assert len(error["value"]) < 300


async def test_a_body_above_the_limit_is_refused(operator: Api) -> None:
    large = b'{"name": "' + b"x" * 17_000_000 + b'"}'

    async def chunks() -> object:
        for start in range(0, len(large), 1 << 20):
            yield large[start : start + (1 << 20)]

    headers = {"Content-Type": "application/json"}
    problem_of(await operator.request("POST", "/vpcs", content=large, headers=headers), 413)
    problem_of(await operator.request("POST", "/vpcs", content=chunks(), headers=headers), 413)


@pytest.mark.parametrize("path", ["/vpcs/not-an-id", "/vpcs?limit=0", "/vpcs?limit=1001"])
async def test_a_malformed_parameter_is_named(operator: Api, path: str) -> None:
    assert only_error(await operator.request("GET", path), 422)["field"] in ("vpc_id", "limit")


# ---- ETag and If-Match ---------------------------------------------------------------------------


async def every_resource(operator: Api, tenant: Api) -> dict[str, Json]:
    """One object of each kind that can be changed: path -> a change."""
    host = await operator.host()
    gateway = await operator.make("/gateways", name=fresh("g"), vtep="198.19.200.1")
    vpc = await tenant.vpc()
    subnet = await tenant.subnet(vpc)
    group = await tenant.make("/security-groups", vpc_id=vpc["id"], name="web")
    made = await tenant.instance(subnet)
    return {
        f"/hosts/{host['id']}": {"capacity": 7},
        f"/gateways/{gateway['id']}": {"name": fresh("g")},
        f"/projects/{vpc['project_id']}": {"name": fresh("p")},
        f"/vpcs/{vpc['id']}": {"name": fresh("v")},
        f"/subnets/{subnet['id']}": {"name": fresh("s")},
        f"/security-groups/{group['id']}": {"name": fresh("g")},
        f"/instances/{made['id']}": {"name": fresh("i")},
        f"/vnics/{made['vnics'][0]['id']}": {"security_group_ids": [group["id"]]},
    }


async def test_a_change_needs_the_version_that_it_names(operator: Api, tenant: Api) -> None:
    await operator.host()
    for path, change in (await every_resource(operator, tenant)).items():
        seen = (await operator.request("GET", path)).headers["etag"]

        first = await operator.patch(path, change, headers={"If-Match": seen})
        again = await operator.patch(path, change, headers={"If-Match": seen})

        assert first.status_code == 200, first.text
        assert first.headers["etag"] != seen
        assert (await operator.request("GET", path)).headers["etag"] == first.headers["etag"]
        assert seen in problem_of(again, 412)["detail"]
        if not path.startswith("/vnics"):
            problem_of(await operator.delete(path, headers={"If-Match": seen}), 412)


async def test_an_empty_change_changes_nothing_but_the_version(tenant: Api) -> None:
    vpc = await tenant.vpc()

    changed = (await tenant.patch(f"/vpcs/{vpc['id']}", {})).json()

    assert changed == {**vpc, "version": vpc["version"] + 1}


async def test_a_made_object_tells_where_it_is_and_its_version(tenant: Api) -> None:
    reply = await tenant.post("/vpcs", {"name": fresh("v")})

    found = await tenant.http.get(reply.headers["location"], headers=tenant.headers)
    assert found.json() == reply.json()
    assert found.headers["etag"] == reply.headers["etag"] == '"1"'


# ---- pages and filters ---------------------------------------------------------------------------


async def test_pages_show_every_object_once(tenant: Api) -> None:
    made = [(await tenant.vpc())["id"] for _ in range(7)]
    seen: list[str] = []
    cursor: Json = {}
    while True:
        page = await tenant.get("/vpcs", limit=3, **cursor)
        seen += [vpc["id"] for vpc in page["items"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}

    assert seen == sorted(made)


async def test_objects_made_between_pages_hide_none(tenant: Api) -> None:
    made = [(await tenant.vpc())["id"] for _ in range(4)]
    first = await tenant.get("/vpcs", limit=2)
    await tenant.delete(f"/vpcs/{made[0]}")
    await tenant.vpc()

    second = await tenant.get("/vpcs", limit=2, cursor=first["next"])

    assert [vpc["id"] for vpc in second["items"]] == made[2:]


@pytest.mark.parametrize("cursor", ["x", "ä", "AAAA", "A" * 64, "!!!!!!!!!!!!!!!!!!!!!!"])
async def test_a_made_up_cursor_is_refused(tenant: Api, cursor: str) -> None:
    reply = await tenant.request("GET", "/vpcs", params={"cursor": cursor})

    assert only_error(reply, 422)["field"] == "cursor"


async def test_filters_select(operator: Api, tenant: Api) -> None:
    host = await operator.host()
    vpc, other = await tenant.vpc(), await tenant.vpc()
    subnet, elsewhere = await tenant.subnet(vpc), await tenant.subnet(other)
    vm = await tenant.instance(subnet, kind="vm")
    container = await tenant.instance(elsewhere, kind="container")
    placed = await operator.instance(subnet, kind="bare_metal", host_id=host["id"])

    async def names(api: Api, **params: object) -> set[str]:
        found = await api.get("/instances", **params)
        return {item["name"] for item in found["items"]}

    assert await names(tenant) == {vm["name"], container["name"], placed["name"]}
    assert await names(tenant, kind="container") == {container["name"]}
    assert await names(tenant, name=vm["name"]) == {vm["name"]}
    assert await names(tenant, vpc_id=other["id"]) == {container["name"]}
    assert await names(tenant, state="ACTIVE") == set()
    assert await names(tenant, state="BUILDING", kind="vm") == {vm["name"]}
    assert placed["name"] in await names(operator, host_id=host["id"])
    assert await names(operator, project_id=str(uuid4())) == set()
    assert await names(operator, project_id=vpc["project_id"]) == await names(tenant)
    problem_of(await tenant.request("GET", f"/instances?host_id={host['id']}"), 403)
    vnics = await tenant.get("/vnics", ip=vm["vnics"][0]["ip"], subnet_id=subnet["id"])
    assert [vnic["instance_id"] for vnic in vnics["items"]] == [vm["id"]]


@pytest.mark.parametrize("filtered", ["subnet", "VPC"])
async def test_vnics_of_a_network_are_listed_in_pages_by_address(
    operator: Api, tenant: Api, filtered: str
) -> None:
    await operator.host()
    vpc = await tenant.vpc()
    subnet = await tenant.subnet(vpc)
    bodies = [instance(subnet) for _ in range(7)]
    await tenant.make("/instances:batch", instances=bodies)
    await tenant.instance(await tenant.subnet(vpc, "10.0.1.0/24"))
    network = {"subnet_id": subnet["id"]} if filtered == "subnet" else {"vpc_id": vpc["id"]}
    found: list[Json] = []
    cursor: Json = {}
    while True:
        page = await tenant.get("/vnics", limit=3, **network, **cursor)
        found += page["items"]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
        await tenant.delete(f"/instances/{found[-1]['instance_id']}")  # no page depends on it
    behind = [vnic["ip"] for vnic in found if vnic["subnet_id"] != subnet["id"]]
    assert len(behind) == (0 if filtered == "subnet" else 1)
    addresses = [int(IPv4Address(vnic["ip"])) for vnic in found]
    assert addresses[:7] == list(range(addresses[0], addresses[0] + 7))
    assert behind == [vnic["ip"] for vnic in found[7:]]


@pytest.mark.parametrize("filtered", ["subnet", "VPC"])
async def test_vnics_of_a_network_with_other_filters(
    operator: Api, tenant: Api, filtered: str
) -> None:
    await operator.host()
    vpc, other = await tenant.vpc(), await tenant.vpc()
    subnet = await tenant.subnet(vpc)
    vm = await tenant.instance(subnet)
    await tenant.instance(subnet)

    async def listed(api: Api, **filters: str) -> list[str]:
        network = {"subnet_id": subnet["id"]} if filtered == "subnet" else {"vpc_id": vpc["id"]}
        page = await api.get("/vnics", **{**network, **filters})
        return [vnic["instance_id"] for vnic in page["items"]]

    assert await listed(tenant, instance_id=vm["id"]) == [vm["id"]]
    assert len(await listed(operator, vpc_id=vpc["id"], project_id=vpc["project_id"])) == 2
    assert await listed(tenant, vpc_id=other["id"]) == []
    assert await listed(operator, project_id=str(uuid4())) == []
    stranger = await operator.tenant(await operator.project())
    assert await listed(stranger) == []
    assert (await tenant.get("/vnics", subnet_id=str(uuid4())))["items"] == []


@pytest.mark.parametrize("place", [uuid4().bytes, bytes(10) + b"\xff" * 6], ids=["id", "last"])
async def test_a_cursor_of_another_list_is_refused(
    operator: Api, tenant: Api, place: bytes
) -> None:
    subnet = await tenant.subnet(await tenant.vpc())
    cursor = base64.urlsafe_b64encode(place).decode().rstrip("=")
    params = {"subnet_id": subnet["id"], "cursor": cursor}
    reply = await tenant.request("GET", "/vnics", params=params)
    assert only_error(reply, 422)["field"] == "cursor"


# ---- Idempotency-Key -----------------------------------------------------------------------------


async def test_a_repeated_request_is_answered_and_not_carried_out_again(
    operator: Api, tenant: Api
) -> None:
    await operator.host()
    subnet = await tenant.subnet(await tenant.vpc())
    body = instance(subnet)
    key = {"Idempotency-Key": fresh("key")}

    first = await tenant.post("/instances", body, headers=key)
    second = await tenant.post("/instances", body, headers=key)

    assert first.status_code == second.status_code == 201
    assert first.content == second.content
    for header in ("etag", "location", "content-type"):
        assert first.headers[header] == second.headers[header]
    assert len((await tenant.get("/instances"))["items"]) == 1


async def test_a_key_belongs_to_one_request_of_one_token(operator: Api, tenant: Api) -> None:
    key = {"Idempotency-Key": fresh("key")}
    await tenant.post("/vpcs", {"name": "one"}, headers=key)

    problem = problem_of(await tenant.post("/vpcs", {"name": "two"}, headers=key), 409)
    stranger = await operator.tenant(await operator.project())
    reply = await stranger.post("/vpcs", {"name": "two"}, headers=key)

    assert "different request" in problem["detail"]
    assert reply.status_code == 201


async def test_a_refused_request_may_be_sent_again_with_its_key(tenant: Api) -> None:
    key = {"Idempotency-Key": fresh("key")}
    vpc = await tenant.vpc()
    body = {"vpc_id": vpc["id"], "name": "b", "cidr": "10.0.0.0/24"}
    blocker = await tenant.subnet(vpc, "10.0.0.0/25")

    problem_of(await tenant.post("/subnets", body, headers=key), 409)
    await tenant.delete(f"/subnets/{blocker['id']}")

    assert (await tenant.post("/subnets", body, headers=key)).status_code == 201


async def test_of_requests_at_once_with_one_key_one_is_carried_out(tenant: Api) -> None:
    key = {"Idempotency-Key": fresh("key")}
    body = {"name": fresh("v")}

    replies = await asyncio.gather(*(tenant.post("/vpcs", body, headers=key) for _ in range(8)))

    assert {reply.status_code for reply in replies} == {201}
    assert len({reply.content for reply in replies}) == 1
    assert len((await tenant.get("/vpcs"))["items"]) == 1


async def test_of_creations_at_once_at_two_controllers_one_is_carried_out(
    controller: Controller, operator: Api, tenant: Api
) -> None:
    await operator.host()
    subnet = await tenant.subnet(await tenant.vpc(), "10.0.0.0/16")
    orders = [(instance(subnet), {"Idempotency-Key": fresh("key")}) for _ in range(20)]
    app = create_app(controller.services, CollectorRegistry())

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://another"
    ) as http:
        other = Api(http, None)
        other.headers = tenant.headers
        replies = await asyncio.gather(
            *(each.post("/instances", body, headers=key) for body, key in orders
              for each in (tenant, other))
        )  # fmt: skip

    assert {reply.status_code for reply in replies} == {201}
    assert [reply.content for reply in replies[::2]] == [reply.content for reply in replies[1::2]]
    assert len((await tenant.get("/instances"))["items"]) == 20


async def test_a_key_is_forgotten_after_a_day(controller: Controller, tenant: Api) -> None:
    key = fresh("key")
    headers = {"Idempotency-Key": key}
    await tenant.post("/vpcs", {"name": "one"}, headers=headers)
    await tenant.post("/vpcs", {"name": "new"}, headers={"Idempotency-Key": fresh("key")})
    table = idempotency_keys
    async with controller.engine.begin() as connection:
        await connection.execute(
            update(table)
            .where(table.c.key == key)
            .values(created_at=func.now() - idempotency.LIFETIME - timedelta(seconds=1))
        )

    reused = await tenant.post("/vpcs", {"name": "two"}, headers=headers)

    assert reused.status_code == 201
    async with controller.engine.begin() as connection:
        await connection.execute(
            update(table)
            .where(table.c.key == key)
            .values(created_at=func.now() - idempotency.LIFETIME)
        )
        assert await idempotency.forget_old(connection) == 1
        left = (await connection.execute(select(table.c.key))).scalars().all()
    assert key not in left
    assert left


@pytest.mark.parametrize("key", ["", "x" * 256, "with space"])
async def test_a_malformed_key_is_refused(tenant: Api, key: str) -> None:
    reply = await tenant.post("/vpcs", {"name": "v"}, headers={"Idempotency-Key": key})

    assert only_error(reply, 422)["field"] == "idempotency-key"
