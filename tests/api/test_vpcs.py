"""VPCs, subnets and security groups."""

import asyncio
from typing import Final

import pytest
from api.client import Api, Json, fresh, only_error, problem_of

EXAMPLE_ID: Final = "01981f2e-7c1a-7d52-9a3e-5f0c1b7d9e42"


async def test_a_vpc_comes_with_a_default_group_that_lets_everything_out(tenant: Api) -> None:
    vpc = await tenant.vpc()

    (group,) = (await tenant.get("/security-groups", vpc_id=vpc["id"]))["items"]

    assert group["name"] == "default"
    assert [rule["remote"] for rule in group["rules"]] == ["0.0.0.0/0", "::/0"]
    for rule in group["rules"]:
        assert (rule["direction"], rule["protocol"]) == ("egress", "any")
        assert rule["port_min"] is None


async def test_every_vpc_has_a_vni_of_its_own_for_ever(tenant: Api) -> None:
    first = await tenant.vpc()
    await tenant.delete(f"/vpcs/{first['id']}")

    second = await tenant.vpc()

    assert second["vni"] > first["vni"] >= 4096


async def test_a_name_is_used_once_per_project(operator: Api, tenant: Api) -> None:
    vpc = await tenant.vpc()
    other = await operator.tenant(await operator.project())

    error = only_error(await tenant.post("/vpcs", {"name": vpc["name"]}), 409)

    assert (error["field"], error["value"]) == ("name", vpc["name"])
    assert (await other.post("/vpcs", {"name": vpc["name"]})).status_code == 201


async def test_an_operator_names_the_project_of_a_vpc(operator: Api) -> None:
    assert only_error(await operator.post("/vpcs", {"name": "v"}), 422)["field"] == "project_id"
    project = await operator.project()

    vpc = await operator.vpc(project)

    assert vpc["project_id"] == project["id"]


async def test_subnets_of_a_vpc_do_not_overlap_and_those_of_two_may(tenant: Api) -> None:
    vpc, other = await tenant.vpc(), await tenant.vpc()
    subnet = await tenant.subnet(vpc, "10.0.0.0/16")
    await tenant.subnet(other, "10.0.0.0/16")

    for cidr in ("10.0.3.0/24", "10.0.0.0/8", "10.0.0.0/16"):
        body = {"vpc_id": vpc["id"], "name": fresh("n"), "cidr": cidr}
        error = only_error(await tenant.post("/subnets", body), 409)
        assert error["field"] == "cidr"
        assert subnet["name"] in error["message"]
        assert subnet["id"] in error["message"]
    await tenant.subnet(vpc, "10.1.0.0/16")


async def test_overlapping_subnets_made_at_once_are_one(tenant: Api) -> None:
    vpc = await tenant.vpc()
    bodies = [
        {"vpc_id": vpc["id"], "name": fresh("n"), "cidr": f"10.0.0.0/{length}"}
        for length in range(16, 24)
    ]

    replies = await asyncio.gather(*(tenant.post("/subnets", body) for body in bodies))

    assert sorted(reply.status_code for reply in replies) == [201] + [409] * 7


@pytest.mark.parametrize(
    ("cidr", "hint"),
    [
        ("10.0.0.5/24", "the network is 10.0.0.0/24"),
        ("2001:db8::/64", "give an IPv4 network"),
        ("10.0.0.0", "10.0.0.0/32"),
        ("nonsense", "as in 10.0.0.0/24"),
        ("127.0.0.0/24", "not for guests"),
        ("0.0.0.0/0", "too wide"),
        ("10.0.0.0/7", "too wide"),
        (7, "string"),
        (None, "string"),
    ],
)
async def test_a_wrong_cidr_is_refused_with_a_hint(tenant: Api, cidr: object, hint: str) -> None:
    vpc = await tenant.vpc()

    reply = await tenant.post("/subnets", {"vpc_id": vpc["id"], "name": "n", "cidr": cidr})

    error = only_error(reply, 422)
    assert error["field"] == "cidr"
    assert hint in error["message"]


@pytest.mark.parametrize(
    ("cidr", "given", "router"),
    [
        ("10.0.0.0/24", None, "10.0.0.1"),
        ("10.0.0.0/24", "10.0.0.254", "10.0.0.254"),
        ("10.0.0.0/31", None, "169.254.1.1"),
        ("10.0.0.0/32", None, "169.254.1.1"),
    ],
)
async def test_a_subnet_has_a_router(
    tenant: Api, cidr: str, given: str | None, router: str
) -> None:
    more = {} if given is None else {"gateway_ip": given}

    subnet = await tenant.subnet(await tenant.vpc(), cidr, **more)

    assert subnet["gateway_ip"] == router


@pytest.mark.parametrize("given", ["10.0.0.0", "10.0.0.255", "10.0.1.1", "fe80::1"])
async def test_a_router_outside_the_subnets_addresses_is_refused(tenant: Api, given: str) -> None:
    vpc = await tenant.vpc()
    body = {"vpc_id": vpc["id"], "name": "n", "cidr": "10.0.0.0/24", "gateway_ip": given}

    assert only_error(await tenant.post("/subnets", body), 422)["field"] == "gateway_ip"


async def test_what_is_in_use_stays_and_its_users_are_named(operator: Api, tenant: Api) -> None:
    host = await operator.host()
    vpc = await tenant.vpc()
    subnet = await tenant.subnet(vpc)
    group = await tenant.make("/security-groups", vpc_id=vpc["id"], name="web")
    vnic = {"subnet_id": subnet["id"], "security_group_ids": [group["id"]]}
    made = await operator.make("/instances", name="i", vnics=[vnic], host_id=host["id"])

    for path, kind, user in [
        (f"/projects/{vpc['project_id']}", "vpc", vpc["id"]),
        (f"/vpcs/{vpc['id']}", "subnet", subnet["id"]),
        (f"/subnets/{subnet['id']}", "vnic", made["vnics"][0]["id"]),
        (f"/security-groups/{group['id']}", "vnic", made["vnics"][0]["id"]),
        (f"/hosts/{host['id']}", "instance", made["id"]),
    ]:
        problem = problem_of(await operator.delete(path), 409)
        assert problem["users_total"] == 1
        assert [(u["kind"], u["id"]) for u in problem["users"]] == [(kind, user)], path


async def test_of_many_users_twenty_are_named_and_all_are_counted(tenant: Api) -> None:
    vpc = await tenant.vpc()
    for number in range(23):
        await tenant.subnet(vpc, f"10.0.{number}.0/24")

    problem = problem_of(await tenant.delete(f"/vpcs/{vpc['id']}"), 409)

    assert (len(problem["users"]), problem["users_total"]) == (20, 23)


async def test_unused_things_can_be_deleted_from_the_inside_out(operator: Api, tenant: Api) -> None:
    vpc = await tenant.vpc()
    subnet = await tenant.subnet(vpc)
    group = await tenant.make("/security-groups", vpc_id=vpc["id"], name="web")

    problem_of(await tenant.delete(f"/vpcs/{vpc['id']}"), 409)
    for path in (
        f"/security-groups/{group['id']}",
        f"/subnets/{subnet['id']}",
        f"/vpcs/{vpc['id']}",
    ):
        assert (await tenant.delete(path)).status_code == 204
        problem_of(await tenant.delete(path), 404)
    assert (await operator.delete(f"/projects/{vpc['project_id']}")).status_code == 204
    problem_of(await tenant.request("GET", "/vpcs"), 401)


# ---- security groups -----------------------------------------------------------------------------


@pytest.fixture
async def group(tenant: Api) -> Json:
    """A security group with the rules that every group begins with."""
    return await tenant.make("/security-groups", vpc_id=(await tenant.vpc())["id"], name="web")


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ({"protocol": "tcp", "port_min": 443}, {"port_min": 443, "port_max": 443}),
        ({"protocol": "udp", "port_min": 1, "port_max": 9}, {"port_min": 1, "port_max": 9}),
        ({"protocol": "tcp"}, {"port_min": 0, "port_max": 65535}),
        ({"protocol": "icmp"}, {"port_min": None, "port_max": None, "icmp_type": None}),
        ({"protocol": "icmp", "icmp_type": 8}, {"icmp_type": 8, "icmp_code": None}),
        ({"protocol": "icmp6", "icmp_type": 1, "icmp_code": 4}, {"icmp_type": 1, "icmp_code": 4}),
        ({"protocol": "icmp", "icmp_type": 0, "icmp_code": 0}, {"icmp_type": 0, "icmp_code": 0}),
        ({"protocol": 58}, {"protocol": "icmp6"}),
        ({"action": "deny", "priority": 7}, {"action": "deny", "priority": 7}),
        ({"protocol": 47}, {"protocol": 47}),
        ({"protocol": 6, "port_min": 22}, {"protocol": "tcp", "port_max": 22}),
        ({}, {"protocol": "any", "remote": "0.0.0.0/0", "action": "allow", "priority": 1000}),
        ({"remote": "10.1.0.0/16"}, {"remote": "10.1.0.0/16"}),
        ({"remote": "2001:DB8::/32"}, {"remote": "2001:db8::/32"}),
        ({"remote": "::/0"}, {"remote": "::/0"}),
    ],
)
async def test_a_rule_means_what_it_says(
    tenant: Api, group: Json, asked: Json, shown: Json
) -> None:
    path = f"/security-groups/{group['id']}/rules"

    rule = await tenant.make(path, direction="ingress", **asked)

    assert rule.items() >= {"direction": "ingress", **shown}.items()
    assert await tenant.get(f"{path}/{rule['id']}") == rule
    assert (await tenant.get(path))["items"] == [*group["rules"], rule]
    assert (await tenant.get(f"/security-groups/{group['id']}"))["version"] == 2


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"direction": "sideways"}, "direction"),
        ({"protocol": "icmp", "port_min": 1}, "body"),
        ({"protocol": "tcp", "icmp_type": 8}, "body"),
        ({"protocol": "icmp", "icmp_code": 0}, "body"),
        ({"protocol": "icmp", "icmp_type": 256}, "icmp_type"),
        ({"priority": 65_536}, "priority"),
        ({"priority": -1}, "priority"),
        ({"action": "reject"}, "action"),
        ({"remote_group_id": EXAMPLE_ID}, "remote_group_id"),
        ({"remote_group_id": EXAMPLE_ID, "remote": "10.0.0.0/8"}, "body"),
        ({"protocol": "tcp", "port_min": 9, "port_max": 8}, "body"),
        ({"protocol": "tcp", "port_min": 70_000}, "port_min"),
        ({"remote": "10.0.0.1/8"}, "remote"),
        ({"remote": "2001:db8::1/64"}, "remote"),
        ({"remote": "::ffff:10.0.0.0/104"}, "remote"),
    ],
)
async def test_a_wrong_rule_is_refused(tenant: Api, group: Json, wrong: Json, field: str) -> None:
    body = {"direction": "ingress", **wrong}

    reply = await tenant.post(f"/security-groups/{group['id']}/rules", body)

    assert only_error(reply, 422)["field"] == field


@pytest.mark.parametrize("protocol", [0, 256, "gre", None, [6]])
async def test_a_protocol_is_a_name_or_a_number(tenant: Api, group: Json, protocol: object) -> None:
    body = {"direction": "ingress", "protocol": protocol}

    problem_of(await tenant.post(f"/security-groups/{group['id']}/rules", body), 422)


async def test_a_group_has_each_rule_once(tenant: Api, group: Json) -> None:
    path = f"/security-groups/{group['id']}/rules"
    same = {"direction": "ingress", "protocol": "tcp", "port_min": 3}
    rule = await tenant.make(path, **same)
    assert "already" in problem_of(await tenant.post(path, same), 409)["detail"]
    for other in ({"priority": 999}, {"action": "deny"}):
        await tenant.make(path, **same, **other)
    assert (await tenant.delete(f"{path}/{rule['id']}")).status_code == 204
    problem_of(await tenant.delete(f"{path}/{rule['id']}"), 404)


async def test_the_default_group_keeps_its_name_and_lives_as_long_as_its_vpc(
    tenant: Api, group: Json
) -> None:
    groups = (await tenant.get("/security-groups", name="default"))["items"]
    path = f"/security-groups/{groups[0]['id']}"

    problem_of(await tenant.patch(path, {"name": "other"}), 409)
    problem_of(await tenant.delete(path), 409)
    problem_of(await tenant.patch(f"/security-groups/{group['id']}", {"name": "default"}), 409)


async def test_what_a_subnets_guests_are_told_can_be_changed(tenant: Api) -> None:
    subnet = await tenant.subnet(await tenant.vpc(), dns_servers=["10.0.0.53"])
    path = f"/subnets/{subnet['id']}"

    told = {"dns_servers": ["10.0.0.54", "fd00::54"], "dhcp_lease_s": 600}
    changed = (await tenant.patch(path, told)).json()
    assert {name: changed[name] for name in told} == told
    assert (changed["name"], changed["version"]) == (subnet["name"], subnet["version"] + 1)
    changed = (await tenant.patch(path, {"dns_servers": []})).json()
    assert (changed["dns_servers"], changed["dhcp_lease_s"]) == ([], 600)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"dhcp_lease_s": 59}, "dhcp_lease_s"),
        ({"dhcp_lease_s": 604_801}, "dhcp_lease_s"),
        ({"dns_servers": ["10.0.0.1"] * 5}, "dns_servers"),
        ({"dns_servers": ["cat"]}, "dns_servers[0]"),
    ],
)
async def test_guests_are_told_nothing_impossible(tenant: Api, body: Json, field: str) -> None:
    subnet = await tenant.subnet(await tenant.vpc())
    assert only_error(await tenant.patch(f"/subnets/{subnet['id']}", body), 422)["field"] == field
