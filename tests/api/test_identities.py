"""Rules that name a security group, and the numbers by which the data plane knows its members."""

import asyncio
from ipaddress import IPv4Address
from typing import Any

import pytest
from api.client import Api, Json, fresh, only_error, problem_of
from api.conftest import Controller
from api.documents import read_whole
from sqlalchemy import select, text

from achelous_controller.domain.identities import HIGHEST, MAX_IDENTITIES, next_free
from achelous_controller.programming.route_pages import read_page
from achelous_controller.store.schema import vnics
from achelous_shared.messages import HostDocument


class Net:
    """A VPC with a subnet and two hosts."""

    def __init__(self, operator: Api, tenant: Api, controller: Controller) -> None:
        self.operator, self.tenant, self.controller = operator, tenant, controller
        self.vpc: Json = {}
        self.subnet: Json = {}
        self.hosts: list[Json] = []

    async def make(self) -> None:
        self.vpc = await self.tenant.vpc()
        self.subnet = await self.tenant.subnet(self.vpc)
        self.hosts = [await self.operator.host() for _ in range(2)]

    async def group(self) -> Json:
        return await self.tenant.make(
            "/security-groups", vpc_id=self.vpc["id"], name=fresh("group")
        )

    async def vnic(self, host: int, *groups: Json) -> Json:
        vnic = {"subnet_id": self.subnet["id"], "security_group_ids": [g["id"] for g in groups]}
        made = await self.operator.make(
            "/instances", name=fresh("i"), host_id=self.hosts[host]["id"], vnics=[vnic]
        )
        found: Json = made["vnics"][0]
        return found

    async def names(self, group: Json, other: Json, **more: Any) -> Json:
        return await self.tenant.make(
            f"/security-groups/{group['id']}/rules",
            **{"direction": "ingress", "remote_group_id": other["id"]} | more,
        )

    async def join(self, vnic: Json, *groups: Json) -> None:
        body = {"security_group_ids": [group["id"] for group in groups]}
        assert (await self.tenant.patch(f"/vnics/{vnic['id']}", body)).status_code == 200

    async def identity(self, vnic: Json) -> int:
        """Of a vNIC, which its host and the gateways are told alike."""
        async with self.controller.engine.connect() as connection:
            query = select(vnics.c.identity).where(vnics.c.id == vnic["id"])
            number: int = (await connection.execute(query)).scalar_one()
            routes = await read_page(connection, self.vpc["vni"], b"", b"", 100)
        told = {str(IPv4Address(row["ip"][12:].tobytes())): int(row["identity"]) for row in routes}
        ports = {
            str(port.vnic_id): port.identity
            for host in (0, 1)
            for port in (await self.document(host)).ports
        }
        assert told[vnic["ip"]] == ports[vnic["id"]] == number
        return number

    async def document(self, host: int) -> HostDocument:
        found = await read_whole(self.controller.engine, [self.hosts[host]["id"]])
        return found[0]

    async def members(self, host: int) -> dict[int, set[str]]:
        """What a host is told of identities: number -> groups."""
        numbers = (await self.document(host)).identities.get(self.vpc["vni"], {})
        return {number: {str(group) for group in groups} for number, groups in numbers.items()}

    async def fill(self, count: int, table: str = "identities") -> None:
        """Take so many numbers for sets that nobody is in."""
        groups, more = (", groups", ", ARRAY[gen_random_uuid()]")
        times, then = (", retired_at", ", now()")
        columns, values = (groups, more) if table == "identities" else (times, then)
        query = (
            f"INSERT INTO {table} (vpc_id, number{columns}) SELECT :vpc, number{values}"  # noqa: S608
            " FROM generate_series(1, 65535) AS number WHERE number NOT IN ("
            "  SELECT number FROM identities WHERE vpc_id = :vpc"
            "  UNION SELECT number FROM retired_identities WHERE vpc_id = :vpc"
            ") ORDER BY number DESC LIMIT :count"
        )
        async with self.controller.engine.begin() as connection:
            await connection.execute(text(query), {"vpc": self.vpc["id"], "count": count})

    async def search_from(self, number: int) -> None:
        """Let the next set have this number, if it is free."""
        query = text("UPDATE vpcs SET next_identity = :number WHERE id = :vpc")
        async with self.controller.engine.begin() as connection:
            await connection.execute(query, {"vpc": self.vpc["id"], "number": number})

    async def retired(self) -> set[int]:
        query = text("SELECT number FROM retired_identities WHERE vpc_id = :vpc")
        async with self.controller.engine.connect() as connection:
            return set((await connection.execute(query, {"vpc": self.vpc["id"]})).scalars())

    async def revision(self, host: int) -> int:
        return (await self.document(host)).revision


@pytest.fixture
async def net(operator: Api, tenant: Api, controller: Controller) -> Net:
    made = Net(operator, tenant, controller)
    await made.make()
    return made


async def test_without_a_rule_that_names_it_a_group_has_no_number(net: Net) -> None:
    assert await net.identity(await net.vnic(0, await net.group())) == 0


async def test_members_get_a_number_when_a_rule_names_their_group(net: Net) -> None:
    web, db, other = await net.group(), await net.group(), await net.group()
    a, b, c = await net.vnic(0, web), await net.vnic(0, web, other), await net.vnic(0, other)
    await net.vnic(1, db)
    await net.names(db, web)
    numbers = [await net.identity(vnic) for vnic in (a, b, c)]
    assert numbers[0] != numbers[1]
    assert min(numbers[:2]) > 0
    assert numbers[2] == 0
    assert await net.members(1) == {number: {web["id"]} for number in numbers[:2]}
    assert await net.members(0) == {}


async def test_a_new_set_is_told_to_hosts_whose_rules_name_a_group_of_it(net: Net) -> None:
    web, db, other = await net.group(), await net.group(), await net.group()
    await net.vnic(1, db)
    await net.names(db, web)
    before = await net.revision(1)
    first = await net.identity(await net.vnic(0, web))
    assert await net.revision(1) == before + 1
    assert await net.identity(await net.vnic(0, web)) == first
    assert await net.revision(1) == before + 1  # nothing new for it
    second = await net.vnic(0, other)
    assert await net.identity(second) == 0
    await net.join(second, other, web)
    assert set(await net.members(1)) == {first, await net.identity(second)}


async def test_vpcs_that_need_each_others_hosts_at_once_both_get_them(
    net: Net, operator: Api, tenant: Api, controller: Controller
) -> None:
    """Each has locked the host of its instance when it finds that the other host must know."""
    other = Net(operator, tenant, controller)
    await other.make()
    other.hosts = net.hosts[::-1]
    bodies = []
    for one in (net, other):
        web, db = await one.group(), await one.group()
        await one.vnic(1, db)
        await one.names(db, web)
        vnic = {"subnet_id": one.subnet["id"], "security_group_ids": [web["id"]]}
        bodies.append({"name": fresh("i"), "host_id": one.hosts[0]["id"], "vnics": [vnic]})

    async with controller.engine.begin() as connection:
        await connection.execute(text("LOCK TABLE identities IN SHARE MODE"))
        asked = [
            asyncio.create_task(operator.post("/instances", bodies[0])),
            asyncio.create_task(operator.post("/instances:batch", {"instances": bodies[1:]})),
        ]
        await controller.until_somebody_waits(2)

    replies = await asyncio.gather(*asked)
    assert [reply.status_code for reply in replies] == [201, 201]


async def test_a_vnic_that_changes_groups_changes_its_number_and_route(net: Net) -> None:
    web, db = await net.group(), await net.group()
    await net.names(db, web)
    vnic = await net.vnic(0, web)
    assert await net.identity(vnic) > 0
    await net.join(vnic, db)
    assert await net.identity(vnic) == 0


async def test_a_rule_names_a_group_of_its_own_vpc_instead_of_a_network(net: Net) -> None:
    web, db = await net.group(), await net.group()
    rule = await net.names(db, web, protocol="tcp", port_min=5432)
    assert (rule["remote"], rule["remote_group_id"]) == (None, web["id"])
    elsewhere = await net.tenant.get("/security-groups", vpc_id=(await net.tenant.vpc())["id"])
    body = {"direction": "ingress", "remote_group_id": elsewhere["items"][0]["id"]}
    reply = await net.tenant.post(f"/security-groups/{db['id']}/rules", body)
    assert only_error(reply, 422)["field"] == "remote_group_id"


async def test_a_group_that_a_rule_names_is_in_use_until_the_rule_goes(net: Net) -> None:
    web, db = await net.group(), await net.group()
    await net.names(web, web)
    rule = await net.names(db, web)
    problem = problem_of(await net.tenant.delete(f"/security-groups/{web['id']}"), 409)
    assert problem["users"][0]["id"] == rule["id"]
    await net.tenant.delete(f"/security-groups/{db['id']}/rules/{rule['id']}")
    assert (await net.tenant.delete(f"/security-groups/{web['id']}")).status_code == 204


async def test_a_vpc_goes_with_a_default_group_that_names_itself(net: Net) -> None:
    vpc = await net.tenant.vpc()
    (default,) = (await net.tenant.get("/security-groups", vpc_id=vpc["id"]))["items"]
    await net.names(default, default)
    assert (await net.tenant.delete(f"/vpcs/{vpc['id']}")).status_code == 204


async def test_a_number_without_vnics_is_retired_when_others_need_its_place(net: Net) -> None:
    web, db, cache, app = [await net.group() for _ in range(4)]
    await net.vnic(1, db)
    await net.names(db, web)
    await net.names(app, cache)
    leaves = await net.vnic(0, web)
    stays = await net.vnic(0, web, cache)
    given_up, kept = await net.identity(leaves), await net.identity(stays)
    await net.join(leaves, app)
    await net.fill(MAX_IDENTITIES - 2)
    await net.search_from(given_up)
    told = await net.revision(1)

    other = await net.identity(await net.vnic(0, cache))

    assert other not in {given_up, kept}
    assert given_up in await net.retired()
    assert len(await net.retired()) == MAX_IDENTITIES - 1
    assert await net.revision(1) == told + 1  # its rules name the group of the number given up
    assert await net.members(1) == {kept: {web["id"]}}


async def test_a_retired_number_is_not_given_until_it_is_free(net: Net) -> None:
    web, db = await net.group(), await net.group()
    await net.names(db, web)
    await net.fill(5, "retired_identities")
    assert await net.retired() == set(range(HIGHEST - 4, HIGHEST + 1))
    await net.search_from(HIGHEST - 4)
    assert await net.identity(await net.vnic(0, web)) == 1


async def test_without_a_free_number_the_error_says_what_to_do(net: Net) -> None:
    web, db = await net.group(), await net.group()
    await net.names(db, web)
    await net.fill(HIGHEST, "retired_identities")
    body = {
        "name": fresh("i"),
        "vnics": [{"subnet_id": net.subnet["id"], "security_group_ids": [web["id"]]}],
    }
    problem = problem_of(await net.tenant.post("/instances", body), 409)
    assert "0 are in use, and 65535 rest" in problem["detail"]
    assert "ask the operator for hosts that are silent" in problem["detail"]


def test_a_number_that_was_given_up_is_used_again_late() -> None:
    assert next_free(0, set(), 3) == [1, 2, 3]
    assert next_free(3, {1, 2, 4}, 2) == [5, 6]
    assert next_free(HIGHEST - 1, {1}, 3) == [HIGHEST, 2, 3]
