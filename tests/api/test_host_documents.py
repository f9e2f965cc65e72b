"""Documents from what is held of ports are those that are read whole, whatever changed."""

from typing import Any
from uuid import UUID

import pytest
from api.client import Api, Json, instance
from api.conftest import Controller
from api.documents import read_whole
from sqlalchemy import delete, select

from achelous_controller.programming.held_ports import HeldPorts
from achelous_controller.programming.host_documents import Fresh, read_fresh
from achelous_controller.store.schema import outbox
from achelous_shared.messages import HostDocument, decode, encode


class Publisher:
    """Reads the documents of two hosts as the leader does, and what they should be."""

    def __init__(self, controller: Controller, hosts: list[UUID]) -> None:
        self._engine, self._hosts, self._held = controller.engine, hosts, HeldPorts()

    def also(self, host: UUID) -> None:
        """Read another host's as well, of which nothing is held."""
        self._hosts.append(host)

    async def publish(self) -> dict[UUID, list[UUID]]:
        """Host -> its vNICs; fails if a document is not the one that is read whole."""
        found = await read_fresh(self._engine, self._hosts, self._held)
        for fresh in found:
            [whole] = await read_whole(self._engine, [fresh.document.host_id])
            assert in_order(decode(encode(fresh.document), HostDocument)) == in_order(whole)
        await self.forget(found)
        return {one.document.host_id: vnics(one) for one in found}

    async def forget(self, found: list[Fresh]) -> None:
        """Take the rows from the outbox that these documents cover."""
        rows = [row for fresh in found for row in fresh.rows]
        async with self._engine.begin() as connection:
            await connection.execute(delete(outbox).where(outbox.c.id.in_(rows)))
            left = select(outbox.c.id).where(outbox.c.host_id.in_(self._hosts))
            assert (await connection.execute(left)).all() == []


def in_order(document: HostDocument) -> Any:
    return (
        document.revision,
        sorted(document.ports, key=lambda port: port.vnic_id),
        document.security_groups,
        document.identities,
    )


def vnics(fresh: Fresh) -> list[UUID]:
    ports = decode(encode(fresh.document), HostDocument).ports
    return sorted(port.vnic_id for port in ports)


def vnic_of(made: Json) -> UUID:
    return UUID(made["vnics"][0]["id"])


@pytest.fixture
async def subnet(tenant: Api) -> Json:
    return await tenant.subnet(await tenant.vpc(), cidr6="fd00:1::/64")


async def test_whatever_changes(
    controller: Controller, operator: Api, tenant: Api, subnet: Json
) -> None:
    here, there = [(await operator.host())["id"] for _ in range(2)]
    publisher = Publisher(controller, [UUID(here), UUID(there)])
    await publisher.publish()
    first = await operator.instance(subnet, host_id=here)
    await publisher.publish()
    more = [instance(subnet, host_id=host) for host in (here, there, here)]
    reply = await operator.post("/instances:batch", {"instances": more})
    second, other, third = reply.json()["instances"]
    assert await publisher.publish() == {
        UUID(here): sorted(map(vnic_of, (first, second, third))), UUID(there): [vnic_of(other)],
    }  # fmt: skip

    await tenant.delete(f"/instances/{second['id']}")
    await operator.instance(subnet, host_id=there)
    assert vnic_of(second) not in (await publisher.publish())[UUID(here)]

    group = await tenant.make("/security-groups", vpc_id=subnet["vpc_id"], name="web")
    change = {"security_group_ids": [group["id"]]}
    await tenant.patch(f"/vnics/{third['vnics'][0]['id']}", change)
    await publisher.publish()
    rules = f"/security-groups/{group['id']}/rules"
    rule = {"direction": "ingress", "protocol": "any", "remote_group_id": group["id"]}
    await tenant.make(rules, **rule)
    await publisher.publish()
    vnic = {"subnet_id": subnet["id"], "security_group_ids": [group["id"]]}
    await operator.make("/instances", name="m", vnics=[vnic], host_id=there)
    await tenant.patch(f"/instances/{first['id']}", {"name": "renamed"})
    await publisher.publish()


async def test_a_change_that_somebody_else_published_is_noticed(
    controller: Controller, operator: Api, subnet: Json
) -> None:
    host = UUID((await operator.host())["id"])
    mine, other = Publisher(controller, [host]), Publisher(controller, [host])
    await operator.instance(subnet, host_id=str(host))
    await mine.publish()
    await operator.instance(subnet, host_id=str(host))
    await other.publish()
    await operator.instance(subnet, host_id=str(host))

    assert len((await mine.publish())[host]) == 3


async def test_a_moved_vnic_leaves_one_document_and_comes_into_the_other(
    controller: Controller, operator: Api, subnet: Json
) -> None:
    here, there = [(await operator.host())["id"] for _ in range(2)]
    both = Publisher(controller, [UUID(here), UUID(there)])
    made = [await operator.instance(subnet, host_id=here) for _ in range(3)]
    stays = await operator.instance(subnet, host_id=there)
    await both.publish()

    await operator.patch(f"/instances/{made[0]['id']}", {"host_id": there})
    assert await both.publish() == {
        UUID(here): sorted(map(vnic_of, made[1:])),
        UUID(there): sorted(map(vnic_of, (made[0], stays))),
    }

    # back while one host's document is held and the other's has to be read whole
    half = Publisher(controller, [UUID(there)])
    await half.publish()
    half.also(UUID(here))
    await operator.patch(f"/instances/{made[0]['id']}", {"host_id": here})
    assert await half.publish() == {
        UUID(here): sorted(map(vnic_of, made)), UUID(there): [vnic_of(stays)],
    }  # fmt: skip
