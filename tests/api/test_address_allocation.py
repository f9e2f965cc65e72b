"""Addresses over the life of a subnet, compared with a model."""

from uuid import UUID

import pytest
from api.client import Api, Json, instance
from api.conftest import Controller
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from achelous_controller.store.schema import instances, vnics

ROUTER, FIRST, LAST = 6, 1, 14  # of 10.0.0.0/28 with its router at 10.0.0.6

steps = st.lists(
    st.one_of(
        st.tuples(st.just("choose"), st.integers(1, 5)),
        st.tuples(st.just("give"), st.integers(0, 15)),
        st.tuples(st.just("free"), st.integers(0, 15)),
    ),
    max_size=12,
)


class Subnet:
    """A subnet of the API beside the set of addresses that should be in use."""

    def __init__(self, controller: Controller, tenant: Api, subnet: Json) -> None:
        self.controller, self.tenant, self.subnet = controller, tenant, subnet
        self.used: dict[int, str] = {}

    def free(self) -> set[int]:
        return set(range(FIRST, LAST + 1)) - {ROUTER} - set(self.used)

    async def choose(self, count: int) -> None:
        batch = {"instances": [instance(self.subnet) for _ in range(count)]}
        reply = await self.tenant.post("/instances:batch", batch)
        if count > len(self.free()):
            assert reply.status_code == 409
            return
        assert reply.status_code == 201, reply.text
        for made in reply.json()["instances"]:
            self.took(made)

    async def give(self, number: int) -> None:
        body = instance(self.subnet, ip=f"10.0.0.{number}")
        reply = await self.tenant.post("/instances", body)
        if number in self.free():
            self.took(reply.json())
        else:
            assert reply.status_code == (409 if number in self.used else 422)

    async def release(self, number: int) -> None:
        if number not in self.used:
            return
        instance_id = UUID(self.used.pop(number))
        await self.tenant.delete(f"/instances/{instance_id}")
        async with self.controller.engine.begin() as connection:  # as the leader does in the end
            await connection.execute(delete(vnics).where(vnics.c.instance_id == instance_id))
            await connection.execute(delete(instances).where(instances.c.id == instance_id))

    def took(self, made: Json) -> None:
        number = int(made["vnics"][0]["ip"].rpartition(".")[2])
        assert number in self.free()
        self.used[number] = made["id"]


@pytest.fixture(scope="module")
async def tenant(controller: Controller) -> Api:
    """A project with room for every example, and a host to run on."""
    await controller.operator.host()
    project = await controller.operator.project(subnets=1000, vpcs=1000)
    return await controller.operator.tenant(project)


@settings(max_examples=25, deadline=None, database=None)
@given(plan=steps)
async def test_an_address_is_never_given_twice_and_none_is_lost(
    controller: Controller, tenant: Api, plan: list[tuple[str, int]]
) -> None:
    vpc = await tenant.vpc()
    net = await tenant.subnet(vpc, "10.0.0.0/28", gateway_ip=f"10.0.0.{ROUTER}")
    subnet = Subnet(controller, tenant, net)
    act = {"choose": subnet.choose, "give": subnet.give, "free": subnet.release}

    for what, number in plan:
        await act[what](number)

    if subnet.free():
        await subnet.choose(len(subnet.free()))  # all that is left can be had
    assert subnet.free() == set()
    await subnet.choose(1)
