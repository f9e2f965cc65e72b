"""Instances and their vNICs, and what the data plane is told of them."""

from ipaddress import IPv4Address
from typing import Any
from uuid import UUID, uuid4

import pytest
from api.client import Api, Json, fresh, fresh_vtep, instance, only_error, problem_of
from api.conftest import Controller
from sqlalchemy import delete, select

from achelous_controller.store.schema import outbox, vnics
from achelous_shared.routes import RouteOp, ip_of, mac_of, unpack


@pytest.fixture
async def host(operator: Api) -> Json:
    return await operator.host()


@pytest.fixture
async def subnet(tenant: Api, host: Json) -> Json:
    """10.0.0.0/24 of a VPC of the test's own, and a host to run on."""
    return await tenant.subnet(await tenant.vpc())


async def recorded(controller: Controller) -> list[Any]:
    """What the outbox has, in order; it is empty afterwards."""
    async with controller.engine.begin() as connection:
        rows = (await connection.execute(select(outbox).order_by(outbox.c.id))).all()
        await connection.execute(delete(outbox))
        return list(rows)


async def test_a_new_instance_is_building_with_an_address_and_a_mac(
    tenant: Api, subnet: Json
) -> None:
    made = await tenant.instance(subnet, kind="container")

    (vnic,) = made["vnics"]
    assert made["state"] == "BUILDING"
    assert made["accepted_at"] < made["committed_at"]
    assert made["published_at"] is None
    assert vnic["ip"] == "10.0.0.2"
    assert vnic["mac"].startswith("02:")
    assert len(vnic["security_group_ids"]) == 1
    assert await tenant.get(f"/instances/{made['id']}") == made
    assert await tenant.get(f"/vnics/{vnic['id']}") == vnic


async def test_hosts_are_shown_to_operators_only(
    operator: Api, tenant: Api, host: Json, subnet: Json
) -> None:
    made = await operator.instance(subnet, host_id=host["id"])
    path = f"/instances/{made['id']}"

    assert made["host_id"] == host["id"]
    assert (await tenant.get(path))["host_id"] is None
    reply = await tenant.post("/instances", instance(subnet, host_id=host["id"]))
    assert only_error(reply, 403)["field"] == "host_id"


async def test_an_instance_may_have_vnics_in_several_vpcs(tenant: Api, subnet: Json) -> None:
    other = await tenant.subnet(await tenant.vpc(), "10.0.0.0/28")
    body = {
        "name": "router",
        "vnics": [{"subnet_id": other["id"], "ip": "10.0.0.9"}, {"subnet_id": subnet["id"]}],
    }

    made = await tenant.make("/instances", **body)

    assert [vnic["vpc_id"] for vnic in made["vnics"]] == [other["vpc_id"], subnet["vpc_id"]]
    assert [vnic["position"] for vnic in made["vnics"]] == [0, 1]
    assert made["vnics"][0]["ip"] == "10.0.0.9"


async def test_macs_are_never_the_same(tenant: Api, subnet: Json) -> None:
    body = {"name": "i", "vnics": [{"subnet_id": subnet["id"]}] * 8}

    made = [await tenant.make("/instances", **body) for _ in range(3)]

    macs = [vnic["mac"] for one in made for vnic in one["vnics"]]
    assert len(set(macs)) == 24


@pytest.mark.parametrize(
    ("ip", "status", "hint"),
    [
        ("10.0.0.1", 422, "router"),
        ("10.0.0.0", 422, "network address"),
        ("10.0.0.255", 422, "broadcast"),
        ("10.0.1.7", 422, "not in the subnet"),
        ("10.0.0", 422, "as in"),
        ("::ffff:10.0.0.7", 422, "IPv6"),
        ("10.0.0.2", 409, "another vNIC's"),
    ],
)
async def test_an_address_that_cannot_be_had_is_refused(
    tenant: Api, subnet: Json, ip: str, status: int, hint: str
) -> None:
    await tenant.instance(subnet)

    error = only_error(await tenant.post("/instances", instance(subnet, ip=ip)), status)

    assert error["field"] == "vnics[0].ip"
    assert error["value"] == ip
    assert hint in error["message"]


async def test_one_request_may_not_ask_for_an_address_twice(tenant: Api, subnet: Json) -> None:
    vnic = {"subnet_id": subnet["id"], "ip": "10.0.0.7"}

    reply = await tenant.post("/instances", {"name": "i", "vnics": [vnic, vnic]})

    error = only_error(reply, 422)
    assert error["field"] == "vnics[1].ip"
    assert "vnics[0]" in error["message"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"vnics": []}, "vnics"),
        ({"vnics": [{"subnet_id": str(uuid4())}] * 9}, "vnics"),
        ({"vnics": [{"subnet_id": str(uuid4())}]}, "vnics[0].subnet_id"),
        ({"vnics": [{}]}, "vnics[0].subnet_id"),
        ({"kind": "robot"}, "kind"),
        ({"name": "no way"}, "name"),
        ({"project_id": str(uuid4())}, "project_id"),
        ({"host_id": str(uuid4())}, "host_id"),
    ],
)
async def test_a_wrong_instance_names_the_field(
    operator: Api, subnet: Json, change: Json, field: str
) -> None:
    reply = await operator.post("/instances", {**instance(subnet), **change})

    assert only_error(reply, 422)["field"] == field


async def test_groups_are_the_vpcs_own(tenant: Api, subnet: Json) -> None:
    ours = await tenant.make("/security-groups", vpc_id=subnet["vpc_id"], name="web")
    other = await tenant.vpc()
    foreign = await tenant.make("/security-groups", vpc_id=other["id"], name="web")

    def body(*groups: str) -> Json:
        return {"name": "i", "vnics": [{"subnet_id": subnet["id"], "security_group_ids": groups}]}

    made = await tenant.make("/instances", **body(ours["id"]))
    vnic = f"/vnics/{made['vnics'][0]['id']}"
    assert made["vnics"][0]["security_group_ids"] == [ours["id"]]
    field = "vnics[0].security_group_ids[1]"
    wrong = await tenant.post("/instances", body(ours["id"], foreign["id"]))
    assert only_error(wrong, 422)["field"] == field
    twice = await tenant.post("/instances", body(ours["id"], ours["id"]))
    assert only_error(twice, 422)["field"] == "vnics[0].security_group_ids"
    many = await tenant.post("/instances", body(*(str(uuid4()) for _ in range(6))))
    assert only_error(many, 422)["field"] == "vnics[0].security_group_ids"
    patch = await tenant.patch(vnic, {"security_group_ids": [foreign["id"]]})
    assert only_error(patch, 422)["field"] == "security_group_ids[0]"
    assert only_error(await tenant.patch(vnic, {"security_group_ids": []}), 422)


async def test_a_full_subnet_is_a_conflict_that_names_it(tenant: Api, host: Json) -> None:
    subnet = await tenant.subnet(await tenant.vpc(), "10.0.0.0/30")
    await tenant.instance(subnet)

    error = only_error(await tenant.post("/instances", instance(subnet)), 409)

    assert error["field"] == "vnics[0].subnet_id"
    assert subnet["name"] in error["message"]
    assert "0 free addresses" in error["message"]


@pytest.mark.parametrize(
    ("cidr", "addresses"),
    [
        ("10.0.0.0/32", ["10.0.0.0"]),
        ("10.0.0.0/31", ["10.0.0.0", "10.0.0.1"]),
        ("10.0.0.0/30", ["10.0.0.2"]),
        ("223.255.255.252/30", ["223.255.255.254"]),
        ("10.0.0.8/29", ["10.0.0.10", "10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.14"]),
    ],
)
async def test_a_subnet_gives_all_its_addresses_and_no_other(
    tenant: Api, host: Json, cidr: str, addresses: list[str]
) -> None:
    subnet = await tenant.subnet(await tenant.vpc(), cidr)

    given = [(await tenant.instance(subnet))["vnics"][0]["ip"] for _ in addresses]

    assert given == addresses
    problem_of(await tenant.post("/instances", instance(subnet)), 409)


# ---- what the data plane is told -----------------------------------------------------------------


async def test_a_new_instance_is_recorded_for_gateways_and_its_host(
    controller: Controller, operator: Api, tenant: Api, subnet: Json
) -> None:
    host = await operator.host()
    vpc = await tenant.get(f"/vpcs/{subnet['vpc_id']}")
    await recorded(controller)

    made = await operator.instance(subnet, host_id=host["id"])

    document, routes = sorted(await recorded(controller), key=lambda row: row.kind)
    entry = unpack(routes.entries)[0]
    assert (routes.kind, routes.vni, routes.base, routes.revision) == ("routes", vpc["vni"], 0, 1)
    assert str(ip_of(entry["ip"].tobytes())) == made["vnics"][0]["ip"]
    assert mac_of(entry["mac"].tobytes()) == made["vnics"][0]["mac"]
    assert str(IPv4Address(int(entry["vtep"]))) == host["vtep"]
    assert (entry["op"], entry["revision"]) == (RouteOp.UPSERT, 1)
    assert (document.kind, str(document.host_id)) == ("host", host["id"])
    assert document.revision == host["revision"] + 1
    assert (await tenant.get(f"/vpcs/{vpc['id']}"))["revision"] == 1


async def test_a_deleted_instance_is_withdrawn_and_waits_for_the_data_plane(
    controller: Controller, operator: Api, tenant: Api, subnet: Json
) -> None:
    host = await operator.host()
    made = await operator.instance(subnet, host_id=host["id"])
    await recorded(controller)

    reply = await tenant.delete(f"/instances/{made['id']}")

    assert reply.status_code == 202
    assert reply.json()["state"] == "DELETING"
    assert reply.json()["published_at"] is None
    document, routes = sorted(await recorded(controller), key=lambda row: row.kind)
    entry = unpack(routes.entries)[0]
    assert (entry["op"], entry["revision"]) == (RouteOp.DELETE, routes.revision)
    assert str(document.host_id) == host["id"]
    async with controller.engine.connect() as connection:
        query = select(vnics).where(vnics.c.instance_id == UUID(made["id"]))
        row = (await connection.execute(query)).one()
    assert row.withdrawn
    assert row.revision == routes.revision
    assert (await operator.get(f"/hosts/{host['id']}"))["vnic_count"] == 0


async def test_deleting_twice_withdraws_once(
    controller: Controller, tenant: Api, subnet: Json
) -> None:
    path = f"/instances/{(await tenant.instance(subnet))['id']}"
    first = await tenant.delete(path)
    await recorded(controller)

    second = await tenant.delete(path)

    assert (second.status_code, second.json()) == (202, first.json())
    assert await recorded(controller) == []
    vnic = first.json()["vnics"][0]
    change = {"security_group_ids": vnic["security_group_ids"]}
    problem_of(await tenant.patch(f"/vnics/{vnic['id']}", change), 409)


async def test_a_changed_group_is_recorded_for_the_hosts_of_its_members_alone(
    controller: Controller, operator: Api, tenant: Api, subnet: Json
) -> None:
    group = await tenant.make("/security-groups", vpc_id=subnet["vpc_id"], name="web")
    members = [await operator.host() for _ in range(2)]
    outsider = await operator.host()
    vnic = {"subnet_id": subnet["id"], "security_group_ids": [group["id"]]}
    for host in members:
        await operator.make("/instances", name="m", vnics=[vnic], host_id=host["id"])
    alone = await operator.instance(subnet, host_id=outsider["id"])
    await recorded(controller)

    async def told() -> set[str]:
        rows = await recorded(controller)
        assert {row.kind for row in rows} <= {"host"}
        return {str(row.host_id) for row in rows}

    rules = f"/security-groups/{group['id']}/rules"
    rule = await tenant.make(rules, direction="ingress", protocol="icmp")
    assert await told() == {host["id"] for host in members}
    await tenant.delete(f"{rules}/{rule['id']}")
    assert await told() == {host["id"] for host in members}
    change = {"security_group_ids": [group["id"]]}
    await tenant.patch(f"/vnics/{alone['vnics'][0]['id']}", change)
    assert await told() == {outsider["id"]}
    await tenant.patch(f"/security-groups/{group['id']}", {"name": "renamed"})
    assert await told() == set()


async def test_the_fleet_is_recorded_when_hosts_and_gateways_come_and_go(
    controller: Controller, operator: Api
) -> None:
    await recorded(controller)

    host = await operator.host()
    assert [row.kind for row in await recorded(controller)] == ["host", "fleet"]
    gateway = await operator.make("/gateways", name=fresh("g"), vtep=fresh_vtep())
    await operator.delete(f"/gateways/{gateway['id']}")
    await operator.delete(f"/hosts/{host['id']}")

    rows = await recorded(controller)
    assert [row.kind for row in rows] == ["fleet"] * 3
    revisions = [row.revision for row in rows]
    assert revisions == list(range(revisions[0], revisions[0] + 3))


async def test_a_refused_request_leaves_no_trace(
    controller: Controller, operator: Api, tenant: Api, subnet: Json
) -> None:
    await recorded(controller)
    vpc = await operator.get(f"/vpcs/{subnet['vpc_id']}")
    batch = [instance(subnet), instance(subnet, ip="10.0.0.1")]

    problem_of(await tenant.post("/instances:batch", {"instances": batch}), 422)

    assert await recorded(controller) == []
    assert await operator.get(f"/vpcs/{subnet['vpc_id']}") == vpc
    assert (await tenant.get("/instances"))["items"] == []
