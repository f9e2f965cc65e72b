"""Rules that name a security group, met by real traffic while groups and rules change."""

import time
from collections.abc import AsyncIterator

import pytest
from platform_world import Net, port_of
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from achelous_lab.api import Object, Rule
from achelous_lab.platform import Instance, Lab, Size
from achelous_lab.waiting import wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
async def lab() -> AsyncIterator[Lab]:
    async with Lab(Size(hosts=2, gateways=1)) as lab:
        yield lab


async def join(net: Net, instance: Instance, *groups: Object) -> None:
    """Put an instance's vNIC into these groups and no others."""
    vnics = (await net.tenant.api.get(f"/instances/{instance.id}"))["vnics"]
    body = {"security_group_ids": [group["id"] for group in groups]}
    await net.tenant.api.call("PATCH", f"/vnics/{vnics[0]['id']}", body)


async def gets_through(a: Instance, b: Instance) -> bool:
    return (await a.guest.ping(b.guest, count=1, wait=0.3)).received == 1


@pytest.mark.parametrize(
    ("net", "host"),
    [("alm", 0), ("alm", 1), ("preprogrammed", 1)],
    ids=["on one host", "across hosts", "across hosts, preprogrammed"],
    indirect=["net"],
)
async def test_who_leaves_a_group_loses_its_flows_within_a_second_and_others_keep_theirs(
    net: Net, host: int
) -> None:
    web, idle = [await net.tenant.security_group(net.vpc, name) for name in ("web", "idle")]
    db = await net.tenant.security_group(net.vpc, "db", Rule("ingress", remote_group_id=web["id"]))
    (server,) = await net.run(host, groups=[db])
    leaves, stays, stranger = await net.run(0, 0, 0, groups=[web])
    await join(net, stranger, idle)

    async with leaves.guest.pinger(server.guest) as going, stays.guest.pinger(server.guest) as kept:
        await going.wait_for_replies(20)
        await kept.wait_for_replies(20)
        ended = time.monotonic()
        await join(net, leaves, idle)
        assert await going.last_reply() - ended < 1.0
        assert (await kept.stop()).lost == 0

    assert not await gets_through(stranger, server)
    await join(net, stranger, web, idle)
    await wait_until(lambda: gets_through(stranger, server), "a new member to be let in")


async def test_a_rule_of_the_sender_that_names_a_group(net: Net) -> None:
    db, other = [await net.tenant.security_group(net.vpc, name, Rule()) for name in ("db", "other")]
    client = await net.tenant.security_group(net.vpc, "client")
    for rule in (await net.tenant.api.get(f"/security-groups/{client['id']}"))["rules"]:
        await net.tenant.api.delete(f"/security-groups/{client['id']}/rules/{rule['id']}")
    await net.tenant.add_rule(client, Rule("egress", remote_group_id=db["id"]))
    (sender,) = await net.run(0, groups=[client])
    (member,) = await net.run(1, groups=[db])
    (stranger,) = await net.run(1, groups=[other])

    await wait_until(lambda: gets_through(sender, member), "the receiver's groups to be known")
    await wait_until(lambda: refused(net, sender, stranger), "a refusal by the rules")
    drops = (await port_of(net.lab, sender))["drops"]
    assert drops["identity_unknown"] >= 1  # each receiver's groups had to be learned first
    assert not await gets_through(sender, stranger)


async def refused(net: Net, sender: Instance, receiver: Instance) -> bool:
    """Whether the sender's rules, and not ignorance, keep a packet back."""
    assert not await gets_through(sender, receiver)
    return "acl_egress" in (await port_of(net.lab, sender))["drops"]


async def test_a_denial_of_lower_priority_number_stops_a_running_flow(net: Net) -> None:
    web = await net.tenant.security_group(net.vpc, "web")
    a, b = await net.run(0, 1, groups=[net.open, web])
    async with a.guest.pinger(b.guest) as pinger:
        await pinger.wait_for_replies(20)
        ended = time.monotonic()
        rule = Rule("ingress", "icmp", remote_group_id=web["id"], action="deny", priority=10)
        await net.tenant.add_rule(net.open, rule)
        assert await pinger.last_reply() - ended < 1.0


@pytest.mark.parametrize("host", [0, 1], ids=["on one host", "across hosts"])
async def test_who_gets_the_number_of_another_set_is_not_let_in_by_it(net: Net, host: int) -> None:
    web, cache, idle = [
        await net.tenant.security_group(net.vpc, name) for name in ("web", "cache", "idle")
    ]
    db = await net.tenant.security_group(net.vpc, "db", Rule("ingress", remote_group_id=web["id"]))
    await net.tenant.security_group(net.vpc, "x", Rule("ingress", remote_group_id=cache["id"]))
    (server,) = await net.run(host, groups=[db])
    (client,) = await net.run(0, groups=[web])
    await wait_until(lambda: gets_through(client, server), "a member to be let in")
    (number,) = await on_database(net, "SELECT number FROM identities WHERE vpc_id = :vpc")
    await join(net, client, idle)

    await on_database(net, FULL, number=number)
    (other,) = await net.run(0, groups=[cache])
    assert not await gets_through(other, server)

    await on_database(net, RESTED)
    await wait_until(lambda: no_number_rests(net), "the numbers to be free", timeout=30)
    await on_database(net, "UPDATE vpcs SET next_identity = :number WHERE id = :vpc", number=number)
    (reuses,) = await net.run(0, groups=[cache, idle])
    (found,) = await on_database(
        net, "SELECT identity FROM vnics WHERE id = CAST(:id AS uuid)", id=reuses.vnics[0]["id"]
    )
    assert found == number
    for _ in range(10):
        assert not await gets_through(reuses, server)
    await join(net, client, web)
    await wait_until(lambda: gets_through(client, server), "a member to be let in again")


FULL = """
    WITH next AS (UPDATE vpcs SET next_identity = :number WHERE id = :vpc)
    INSERT INTO identities (vpc_id, number, groups)
    SELECT :vpc, n, ARRAY[gen_random_uuid()] FROM generate_series(10001, 14095) AS n
"""
"""Other sets have all other places, though no vNIC is in them; the next number is a given one."""

RESTED = """
    UPDATE retired_identities SET retired_at = retired_at - interval '1 day' WHERE vpc_id = :vpc
"""


async def no_number_rests(net: Net) -> bool:
    return not await on_database(net, "SELECT number FROM retired_identities WHERE vpc_id = :vpc")


async def on_database(net: Net, query: str, **values: object) -> list[object]:
    """What a statement about the VPC returns first of each row."""
    engine = create_async_engine(net.lab.dsn(), poolclass=NullPool)
    async with engine.begin() as connection:
        result = await connection.execute(text(query), {"vpc": net.vpc["id"]} | values)
        return list(result.scalars()) if result.returns_rows else []
