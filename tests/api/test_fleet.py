"""Projects with their quotas, hosts and gateways."""

import pytest
from api.client import Api, fresh, fresh_vtep, instance, only_error, problem_of


async def test_a_project_has_the_quotas_it_was_given(operator: Api) -> None:
    project = await operator.project(instances=5)
    path = f"/projects/{project['id']}"

    changed = (await operator.patch(path, {"quotas": {"vnics": 7}})).json()

    assert (changed["quotas"]["instances"], changed["quotas"]["vnics"]) == (5, 7)
    assert changed["quotas"]["vpcs"] == project["quotas"]["vpcs"]


async def test_what_goes_beyond_a_quota_is_refused_with_the_numbers(operator: Api) -> None:
    await operator.host()
    project = await operator.project(vpcs=1, subnets=1, security_groups=1, instances=3, vnics=2)
    tenant = await operator.tenant(project)
    vpc = await tenant.vpc()
    subnet = await tenant.subnet(vpc)
    await tenant.make("/security-groups", vpc_id=vpc["id"], name="web")
    await tenant.instance(subnet)

    for path, body, resource in [
        ("/vpcs", {"name": "v"}, "vpcs"),
        ("/subnets", {"vpc_id": vpc["id"], "name": "n", "cidr": "10.9.0.0/24"}, "subnets"),
        ("/security-groups", {"vpc_id": vpc["id"], "name": "x"}, "security_groups"),
        ("/instances", instance(subnet) | {"vnics": [{"subnet_id": subnet["id"]}] * 2}, "vnics"),
        ("/instances:batch", {"instances": [instance(subnet)] * 3}, "instances"),
    ]:
        problem = problem_of(await tenant.post(path, body), 409)
        assert problem["type"].endswith("quota-exceeded")
        quota = problem["quota"]
        assert quota["resource"] == resource
        assert quota["used"] + quota["requested"] > quota["quota"]


async def test_usage_is_what_there_is(operator: Api, tenant: Api) -> None:
    await operator.host()
    vpc = await tenant.vpc()
    subnet = await tenant.subnet(vpc)
    gone = await tenant.instance(subnet)
    await tenant.instance(subnet, vnics=[{"subnet_id": subnet["id"]}] * 2)
    usage = f"/projects/{vpc['project_id']}/usage"

    before = (await tenant.get(usage))["used"]
    await tenant.delete(f"/instances/{gone['id']}")
    await tenant.delete(f"/instances/{gone['id']}")
    after = (await tenant.get(usage))["used"]

    counts = {"vpcs": 1, "subnets": 1, "security_groups": 0, "security_group_rules": 2}
    assert before == {**counts, "instances": 2, "vnics": 3}
    assert after == {**counts, "instances": 1, "vnics": 2}


async def test_rules_are_counted_while_they_are_there(operator: Api) -> None:
    project = await operator.project(security_group_rules=5)
    tenant = await operator.tenant(project)

    async def used() -> int:
        usage = await tenant.get(f"/projects/{project['id']}/usage")
        return int(usage["used"]["security_group_rules"])

    vpc = await tenant.vpc()  # its default group has two, as every new one
    group = await tenant.make("/security-groups", vpc_id=vpc["id"], name="web")
    rules = f"/security-groups/{group['id']}/rules"
    added = await tenant.make(rules, direction="ingress", protocol="tcp")
    quota = problem_of(await tenant.post(rules, {"direction": "ingress"}), 409)["quota"]
    assert (quota["resource"], quota["quota"], quota["used"]) == ("security_group_rules", 5, 5)

    await tenant.delete(f"{rules}/{added['id']}")
    assert await used() == 4
    await tenant.delete(f"/security-groups/{group['id']}")
    assert await used() == 2
    await tenant.delete(f"/vpcs/{vpc['id']}")
    assert await used() == 0


async def test_names_and_addresses_of_hosts_and_gateways_are_unique(operator: Api) -> None:
    host = await operator.host()
    gateway = await operator.make("/gateways", name=fresh("g"), vtep=fresh_vtep())

    for path, body, field in [
        ("/hosts", {"name": host["name"], "vtep": fresh_vtep()}, "name"),
        ("/hosts", {"name": fresh("h"), "vtep": host["vtep"]}, "vtep"),
        ("/hosts", {"name": fresh("h"), "vtep": gateway["vtep"]}, "vtep"),
        ("/gateways", {"name": gateway["name"], "vtep": fresh_vtep()}, "name"),
        ("/gateways", {"name": fresh("g"), "vtep": host["vtep"]}, "vtep"),
    ]:
        error = only_error(await operator.post(path, body), 409)
        assert (error["field"], error["value"]) == (field, body[field])


@pytest.mark.parametrize("vtep", ["127.0.0.1", "224.0.0.1", "0.0.0.0", "::1", "x"])  # noqa: S104
async def test_a_vtep_is_a_unicast_ipv4_address(operator: Api, vtep: str) -> None:
    body = {"name": "h", "vtep": vtep}

    assert only_error(await operator.post("/hosts", body), 422)["field"] == "vtep"


async def test_capacity_is_not_lowered_below_what_runs(operator: Api, tenant: Api) -> None:
    host = await operator.host()
    subnet = await tenant.subnet(await tenant.vpc())
    for _ in range(2):
        await operator.instance(subnet, host_id=host["id"])
    path = f"/hosts/{host['id']}"

    problem_of(await operator.patch(path, {"capacity": 1}), 409)
    assert (await operator.patch(path, {"capacity": 2})).json()["vnic_count"] == 2


async def test_a_gateway_and_an_empty_host_can_be_deleted(operator: Api) -> None:
    host = await operator.host()
    gateway = await operator.make("/gateways", name=fresh("g"), vtep=fresh_vtep())

    for path in (f"/hosts/{host['id']}", f"/gateways/{gateway['id']}"):
        assert (await operator.delete(path)).status_code == 204
        problem_of(await operator.request("GET", path), 404)
