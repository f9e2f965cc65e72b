"""Documents from what is held of ports are those that are read whole, whatever changed."""

from typing import Any
from uuid import UUID

import pytest
from api.client import Api, Json, instance
from api.conftest import Controller
from api.documents import read_of, read_wanted, read_whole, snapshot
from sqlalchemy import delete, select

from achelous_controller.programming import host_documents
from achelous_controller.programming import outbox as rows
from achelous_controller.programming.held_ports import HeldPorts
from achelous_controller.programming.host_documents import (
    Fresh,
    Wanted,
    read_fresh,
)
from achelous_controller.store.schema import outbox
from achelous_shared.host_documents import HostReader
from achelous_shared.messages import HostChanges, HostDocument, decode_host, encode


class Publisher:
    """Reads the documents of two hosts as the leader does, and what they should be."""

    def __init__(self, controller: Controller, hosts: list[UUID]) -> None:
        self._engine, self._hosts, self._held = controller.engine, hosts, HeldPorts()
        self._readers = {host: HostReader() for host in hosts}
        self.kinds: list[type] = []
        """Of the messages that were published last, in order of host."""

    def also(self, host: UUID) -> None:
        """Read another host's as well, of which nothing is held."""
        self._hosts.append(host)
        self._readers[host] = HostReader()

    async def publish(self) -> dict[UUID, list[UUID]]:
        """Host -> its vNICs; fails if what a host has then is not the document that is read
        whole."""
        found = await read_of(self._engine, self._hosts, self._held)
        self.kinds = [type(fresh.message) for fresh in found]
        now: dict[UUID, list[UUID]] = {}
        for fresh in found:
            host = fresh.message.host_id
            assert self._readers[host].take(decode_host(encode(fresh.message)))
            fresh.published()
            document = self._readers[host].document()
            assert document is not None
            [whole] = await read_whole(self._engine, [host])
            assert in_order(document) == in_order(whole)
            now[host] = sorted(port.vnic_id for port in document.ports)
        await self.forget(found)
        return now

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
        document.preprogrammed,
    )


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


async def test_a_change_is_told_by_what_changed_and_a_change_of_rules_by_the_whole(
    controller: Controller, operator: Api, tenant: Api, subnet: Json
) -> None:
    host = UUID((await operator.host())["id"])
    publisher = Publisher(controller, [host])
    batch = [instance(subnet, host_id=str(host)) for _ in range(8)]
    made = (await operator.post("/instances:batch", {"instances": batch})).json()["instances"]
    await publisher.publish()
    assert publisher.kinds == [HostDocument]

    await operator.instance(subnet, host_id=str(host))
    await publisher.publish()
    assert publisher.kinds == [HostChanges]
    await tenant.delete(f"/instances/{made[0]['id']}")
    other = await tenant.subnet(await tenant.vpc())  # whose groups the host has no rules of
    await operator.instance(other, host_id=str(host))
    assert len((await publisher.publish())[host]) == 9
    assert publisher.kinds == [HostChanges]

    await publisher.publish()  # the host does not run it: it is asked for again
    assert publisher.kinds == [HostDocument]
    await operator.instance(subnet, host_id=str(host))
    await publisher.publish()
    assert publisher.kinds == [HostChanges]
    [group] = (await tenant.get("/security-groups", vpc_id=subnet["vpc_id"]))["items"]
    await tenant.make(f"/security-groups/{group['id']}/rules", direction="ingress", protocol="tcp")
    await publisher.publish()
    assert publisher.kinds == [HostDocument]


async def test_a_step_is_bounded_and_what_it_leaves_comes_with_the_next(
    controller: Controller, operator: Api, subnet: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with controller.engine.begin() as connection:
        await connection.execute(delete(outbox))
    first, second = [UUID((await operator.host())["id"]) for _ in range(2)]
    for host in (first, second, first):
        await operator.instance(subnet, host_id=str(host))
    held = HeldPorts()

    async def step() -> tuple[dict[UUID, Wanted], list[Fresh]]:
        async with snapshot(controller.engine) as connection:
            wanted = await read_wanted(connection)
            return wanted, await read_fresh(connection, wanted, held)

    monkeypatch.setattr(rows, "BATCH_DOCUMENTS", 1)
    wanted, _ = await step()  # of its host all, however few rows were asked for
    assert [(host, len(want.changes)) for host, want in wanted.items()] == [(first, 3)]
    monkeypatch.undo()
    monkeypatch.setattr(host_documents, "PORTS_AT_ONCE", 1)
    held = HeldPorts()
    wanted, found = await step()
    assert list(wanted) == [first, second]
    assert [fresh.message.host_id for fresh in found] == [first]
    assert len(found[0].rows) == 3

    await Publisher(controller, [first]).forget(found)
    _, found = await step()
    assert [fresh.message.host_id for fresh in found] == [second]
