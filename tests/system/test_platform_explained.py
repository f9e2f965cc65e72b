"""What an operator can find out about packets, on a whole platform."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from platform_world import Net

from achelous_lab.api import Rule
from achelous_lab.platform import Lab, Size
from achelous_lab.waiting import wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
async def lab() -> AsyncIterator[Lab]:
    async with Lab(Size(hosts=2, gateways=1)) as lab:
        yield lab


async def test_a_denied_packet_is_shown_with_its_vnic_and_headers(net: Net) -> None:
    [a] = await net.run(0)
    [b] = await net.run(1, groups=[])
    vnic = b.vnics[0]["id"]
    path = f"/hosts/{b.host.id}/drops"
    found: list[dict[str, object]] = []

    async def shown() -> bool:
        await a.guest.ping(b.guest, count=1)
        reply = await net.lab.api.get(path, vnic_id=vnic)
        found[:] = [each for each in reply["samples"] if each["reason"] == "acl_ingress"]
        return bool(found)

    await wait_until(shown, "a sample of the denied ping")
    assert found[0]["vnic_id"] == vnic
    assert found[0]["direction"] == "underlay"
    assert f"icmp {a.guest.ip} > {b.guest.ip} type 8" in str(found[0]["summary"])


async def test_the_rule_that_denied_is_named(net: Net) -> None:
    deny = Rule("ingress", "icmp", remote="0.0.0.0/0", action="deny", priority=10)
    closed = await net.tenant.security_group(net.vpc, "closed", deny, Rule())
    [a] = await net.run(0)
    [b] = await net.run(1, groups=[closed])
    rules = (await net.tenant.api.get(f"/security-groups/{closed['id']}/rules"))["items"]
    [denying] = [rule["id"] for rule in rules if rule["action"] == "deny"]

    async def named() -> bool:
        await a.guest.ping(b.guest, count=1)
        reply = await net.lab.api.get(f"/hosts/{b.host.id}/drops", vnic_id=b.vnics[0]["id"])
        return any(sample["rule"] == denying for sample in reply["samples"])

    await wait_until(named, "a sample that names the rule")


async def test_the_flow_that_moves_most_is_on_top(net: Net) -> None:
    a, b = await net.run(0, 1)
    path = f"/hosts/{a.host.id}/flows"
    sending = asyncio.create_task(a.guest.iperf3(b.guest, 3))
    async with a.guest.pinger(b.guest):

        async def on_top() -> bool:
            for top in (await net.lab.api.get(path, seconds=0.5))["flows"][:1]:
                is_tcp = top["session"]["protocol"] == "tcp"
                return bool(is_tcp and sum(top["bits_per_s"]) > 1e6)
            return False

        await wait_until(on_top, "iperf on top of the flows")
    await sending
