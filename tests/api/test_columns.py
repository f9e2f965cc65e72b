"""What is made from columns is what was asked for, by INSERT and by COPY."""

import asyncio
import string
from ipaddress import ip_address, ip_network
from random import Random
from typing import Any

import pytest
from api.client import Api, Json, fresh
from api.conftest import Controller
from sqlalchemy import func, select

from achelous_controller.domain.instances import MAC_PREFIX
from achelous_controller.store.allocation import Macs
from achelous_controller.store.database import Database
from achelous_controller.store.schema import MAC_BLOCK, hosts, instances, vnics, vpcs

CHARACTERS = string.ascii_letters + string.digits


class Asking:
    """Makes up requests: one or several vNICs in subnets of several VPCs, with and without IPv6."""

    def __init__(self, random: Random, nets: list[Json], groups: dict[str, list[Json]]) -> None:
        self._random = random
        self._nets = nets
        self._groups = groups
        self._hosts = 200

    def instance(self) -> Json:
        draw = self._random
        body: Json = {
            "name": draw.choice(CHARACTERS) + "".join(
                draw.choices(f"{CHARACTERS}._-", k=draw.choice([0, 1, 7, 62]))
            ),
            "vnics": [self._vnic() for _ in range(draw.choice([1, 1, 1, 2, 8]))],
        }  # fmt: skip
        if draw.random() < 0.5:
            body["kind"] = draw.choice(["vm", "bare_metal", "container"])
        return body

    def _vnic(self) -> Json:
        net = self._random.choice(self._nets)
        vnic: Json = {"subnet_id": net["id"]}
        groups = self._random.sample(self._groups[net["vpc_id"]], self._random.choice([0, 0, 1, 3]))
        if groups:
            vnic["security_group_ids"] = [group["id"] for group in groups]
        if self._random.random() < 0.2:
            self._hosts += 1
            vnic["ip"] = str(ip_network(net["cidr"])[self._hosts])
        return vnic


@pytest.fixture
async def nets(operator: Api, tenant: Api) -> list[Json]:
    """Two subnets in each of three VPCs, half of them with IPv6, and hosts to run on."""
    for _ in range(3):
        await operator.host()
    found = []
    for _ in range(3):
        vpc = await tenant.vpc()
        found.append(await tenant.subnet(vpc, "10.0.0.0/16"))
        found.append(await tenant.subnet(vpc, "10.1.0.0/16", cidr6="fd00:1::/64"))
    return found


async def _groups(tenant: Api, nets: list[Json]) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = {}
    for vpc_id in {net["vpc_id"] for net in nets}:
        made = [
            await tenant.make("/security-groups", vpc_id=vpc_id, name=fresh("g")) for _ in range(3)
        ]
        listed = await tenant.get("/security-groups", vpc_id=vpc_id)
        found[vpc_id] = [*made, *(g for g in listed["items"] if g["name"] == "default")]
    return found


@pytest.mark.parametrize("count", [1, 7, 600])
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_batch_is_stored_as_it_was_asked_for(
    controller: Controller, tenant: Api, nets: list[Json], count: int, seed: int
) -> None:
    groups = await _groups(tenant, nets)
    asking = Asking(Random(seed), nets, groups)  # noqa: S311  the same each time
    asked = [asking.instance() for _ in range(count)]

    reply = await tenant.post("/instances:batch", {"instances": asked})

    assert reply.status_code == 201, reply.text
    made = reply.json()["instances"]
    stored = {one["id"]: one for one in (await tenant.get("/instances", limit=1000))["items"]}
    assert [without_order(one) for one in made] == [
        without_order(stored[one["id"]]) for one in made
    ]
    subnets = {net["id"]: net for net in nets}
    for wanted, one in zip(asked, made, strict=True):
        assert (one["name"], one["kind"]) == (wanted["name"], wanted.get("kind", "vm"))
        assert [vnic["position"] for vnic in one["vnics"]] == list(range(len(wanted["vnics"])))
        for part, vnic in zip(wanted["vnics"], one["vnics"], strict=True):
            agrees(part, vnic, subnets[part["subnet_id"]], groups)
    ids = [one["id"] for one in made]
    assert ids == sorted(set(ids))
    every = [vnic for one in made for vnic in one["vnics"]]
    assert len({vnic["mac"] for vnic in every}) == len(every)
    assert len({(vnic["vpc_id"], vnic["ip"]) for vnic in every}) == len(every)
    await is_consistent(controller, {vnic["vpc_id"] for vnic in every})


def without_order(instance: Json) -> Json:
    """Groups are a set."""
    vnics = [
        vnic | {"security_group_ids": sorted(vnic["security_group_ids"])}
        for vnic in instance["vnics"]
    ]
    return instance | {"vnics": vnics}


def agrees(part: Json, vnic: Json, net: Json, groups: dict[str, list[Json]]) -> None:
    """A vNIC is what its part of the request says, and the rest is chosen as it may be."""
    default = [g["id"] for g in groups[net["vpc_id"]] if g["name"] == "default"]
    assert vnic["security_group_ids"] == part.get("security_group_ids", default)
    assert (vnic["subnet_id"], vnic["vpc_id"]) == (net["id"], net["vpc_id"])
    assert vnic["project_id"] == net["project_id"]
    assert vnic["ip"] == part.get("ip", vnic["ip"])
    assert ip_address(vnic["ip"]) in ip_network(net["cidr"])
    assert (vnic["ip6"] is None) == (net["cidr6"] is None)
    if vnic["ip6"] is not None:
        assert ip_address(vnic["ip6"]) in ip_network(net["cidr6"])


async def is_consistent(controller: Controller, vpc_ids: set[Any]) -> None:
    """vNICs have their instance's host and their VPC's VNI and last revision; hosts their count."""
    async with controller.engine.connect() as connection:
        astray = (
            select(func.count())
            .select_from(vnics)
            .join(instances, instances.c.id == vnics.c.instance_id)
            .join(vpcs, vpcs.c.id == vnics.c.vpc_id)
            .where(
                (vnics.c.host_id != instances.c.host_id)
                | (vnics.c.vni != vpcs.c.vni)
                | (vnics.c.revision > vpcs.c.revision)
            )
        )
        assert (await connection.execute(astray)).scalar_one() == 0
        counts = (
            select(hosts.c.vnic_count, func.count(vnics.c.id).label("stored"))
            .outerjoin(vnics, vnics.c.host_id == hosts.c.id)
            .group_by(hosts.c.id)
        )
        assert all(row.vnic_count == row.stored for row in await connection.execute(counts))


async def test_macs_of_many_at_once_are_each_given_once(controller: Controller) -> None:
    controllers = [Macs(Database(controller.engine)) for _ in range(3)]
    sizes = [1, 5, MAC_BLOCK - 3, 2 * MAC_BLOCK + 7, 1]

    parts = await asyncio.gather(*(macs.take(size) for macs in controllers for size in sizes))

    assert [len(part) for part in parts] == sizes * 3
    given = {int(mac) for part in parts for mac in part}
    assert len(given) == 3 * sum(sizes)
    assert all(mac & MAC_PREFIX and mac >> 42 == 0 for mac in given)
