"""A vNIC has at most 500 rules of one direction, of all its groups together."""

from collections.abc import Sequence
from uuid import UUID

import pytest
from api.client import Api, Json, fresh, only_error, problem_of
from api.conftest import Controller
from sqlalchemy import insert

from achelous_controller.domain.ids import new_id
from achelous_controller.domain.rules import MAX_RULES
from achelous_controller.store.schema import security_group_rules


class Groups:
    """Security groups of one VPC, filled without the API's help."""

    def __init__(self, tenant: Api, controller: Controller, subnet: Json) -> None:
        self.tenant, self.controller, self.subnet = tenant, controller, subnet

    async def make(self, count: int) -> Json:
        """A group with so many ingress rules."""
        group = await self.tenant.make(
            "/security-groups", vpc_id=self.subnet["vpc_id"], name=fresh("group")
        )
        rows = [
            {
                "id": new_id(), "security_group_id": UUID(group["id"]), "egress": False,
                "protocol": 6, "port_min": port, "port_max": port, "remote": "10.0.0.0/8",
            }
            for port in range(count)
        ]  # fmt: skip
        async with self.controller.engine.begin() as connection:
            await connection.execute(insert(security_group_rules), rows)
        return group

    def instance(self, *groups: Json) -> Json:
        vnic = {"subnet_id": self.subnet["id"], "security_group_ids": ids(groups)}
        return {"name": fresh("i"), "vnics": [vnic]}


def ids(groups: Sequence[Json]) -> list[str]:
    return [group["id"] for group in groups]


@pytest.fixture
async def groups(operator: Api, tenant: Api, controller: Controller) -> Groups:
    await operator.host()
    return Groups(tenant, controller, await tenant.subnet(await tenant.vpc()))


async def test_a_group_has_five_hundred_rules_of_a_direction_at_most(
    tenant: Api, groups: Groups
) -> None:
    group = await groups.make(MAX_RULES - 1)
    path = f"/security-groups/{group['id']}/rules"
    await tenant.make(path, direction="ingress", protocol="udp")
    detail = problem_of(await tenant.post(path, {"direction": "ingress"}), 409)["detail"]
    assert "500 ingress rules" in detail
    await tenant.make(path, direction="egress", protocol="udp")
    assert len((await tenant.get(path))["items"]) == MAX_RULES + 3  # two were there from the start


async def test_a_rule_that_would_be_too_many_for_a_member_is_refused(
    tenant: Api, groups: Groups
) -> None:
    alone, large, small = await groups.make(200), await groups.make(499), await groups.make(1)
    await tenant.make("/instances", **groups.instance(large, small))
    await tenant.make("/instances", **groups.instance(alone))
    reply = await tenant.post(f"/security-groups/{small['id']}/rules", {"direction": "ingress"})
    assert "a vNIC in the security group has 500 ingress rules" in problem_of(reply, 409)["detail"]
    await tenant.make(f"/security-groups/{alone['id']}/rules", direction="ingress")


async def test_a_vnic_in_groups_with_too_many_rules_is_refused(tenant: Api, groups: Groups) -> None:
    large, small = await groups.make(499), await groups.make(2)
    error = only_error(await tenant.post("/instances", groups.instance(large, small)), 409)
    assert error["field"] == "vnics[0].security_group_ids"
    assert "501 ingress rules together" in error["message"]
    made = await tenant.make("/instances", **groups.instance(large))
    body = {"security_group_ids": ids([large, small])}
    reply = await tenant.patch(f"/vnics/{made['vnics'][0]['id']}", body)
    assert only_error(reply, 409)["field"] == "security_group_ids"
