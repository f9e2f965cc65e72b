"""Two subnets with IPv4 and IPv6 on a whole platform: routed by the hosts, as guests see it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from achelous_lab.api import Object, Rule
from achelous_lab.platform import Instance, Lab, Size
from achelous_lab.process import run
from achelous_lab.waiting import wait_until

pytestmark = pytest.mark.kernel


@dataclass(frozen=True, slots=True)
class Routed:
    """`a` in one subnet on one host, `b` in another on the other."""

    a: Instance
    b: Instance
    near: Object


@pytest.fixture(scope="module")
async def routed() -> AsyncIterator[Routed]:
    async with Lab(Size(hosts=2, gateways=1)) as lab:
        tenant = await lab.tenant("six")
        vpc = await tenant.vpc("both")
        near = await tenant.subnet(vpc, "10.0.0.0/24", cidr6="fd00:0:0:1::/64")
        far = await tenant.subnet(vpc, "10.0.1.0/24", cidr6="fd00:0:0:2::/64")
        group = await tenant.security_group(vpc, "open", Rule(), Rule(remote="::/0"))
        a = await lab.instance(tenant, near, "a", host=lab.hosts[0], groups=[group])
        b = await lab.instance(tenant, far, "b", host=lab.hosts[1], groups=[group])
        yield Routed(a, b, near)


async def says(machine: Instance, *ping: str) -> str:
    """What ping prints."""
    argv = ["ping", "-n", "-c", "2", "-i", "0.05", "-W", "1", *ping]
    return (await run(argv, netns=machine.guest.name, timeout=10, check=False)).stdout.decode()


async def test_subnets_reach_each_other_by_both_families(routed: Routed) -> None:
    async def answered() -> bool:
        return (await routed.a.guest.ping6(routed.b.guest)).received == 3

    await wait_until(answered, "b to answer by IPv6")
    assert (await routed.a.guest.ping(routed.b.guest)).received == 3
    assert "ttl=63" in await says(routed.a, str(routed.b.guest.ip))
    assert "ttl=63" in await says(routed.a, "-6", str(routed.b.guest.ip6))


async def test_the_router_answers_and_shows_in_a_traceroute(routed: Routed) -> None:
    for family, target, router in (
        ("-4", str(routed.b.guest.ip), str(routed.near["gateway_ip"])),
        ("-6", str(routed.b.guest.ip6), str(routed.near["gateway_ip6"])),
    ):
        assert "2 received" in await says(routed.a, family, router)
        first_hop = await says(routed.a, family, "-t", "1", target)
        assert f"From {router}" in first_hop
        assert "exceeded" in first_hop
