"""Two gateways that share the VPCs: each holds and relays those of its shards, and no others."""

from collections.abc import AsyncIterator

import pytest
from platform_world import Net, database_routes, kernel_routes, learned, tables

from achelous_lab.platform import Lab, Machine, Size
from achelous_lab.waiting import wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
async def lab() -> AsyncIterator[Lab]:
    async with Lab(Size(hosts=2, gateways=2, gateway_groups=2)) as lab:
        yield lab


@pytest.fixture
async def nets(lab: Lab) -> list[Net]:
    """A VPC in an even shard, and one in an odd shard."""
    made = [await Net.create(lab), await Net.create(lab)]
    return sorted(made, key=lambda net: int(net.vpc["vni"]) % 2)


async def relayed_by(lab: Lab, gateway: Machine) -> int:
    return int((await tables(lab, gateway))["relayed_packets"])


async def test_each_gateway_holds_and_relays_its_own_vpcs(lab: Lab, nets: list[Net]) -> None:
    for number, net in enumerate(nets):
        a, b = await net.run(0, 1)
        own, other = lab.gateways[number], lab.gateways[1 - number]
        before = await relayed_by(lab, own), await relayed_by(lab, other)

        assert (await a.guest.ping(b.guest, count=2)).lost == 0
        await learned(lab, a, b)

        assert await relayed_by(lab, own) > before[0]
        assert await relayed_by(lab, other) == before[1]
    wanted = await database_routes(lab)
    for number, gateway in enumerate(lab.gateways):
        ours = {key: route for key, route in wanted.items() if key[0] % 2 == number}
        assert kernel_routes(lab, gateway) == ours
        shown = await tables(lab, gateway)
        assert {vpc["vni"] % 2 for vpc in shown["vpcs"]} == {number}


async def test_a_dead_gateway_is_no_concern_of_other_shards(lab: Lab, nets: list[Net]) -> None:
    even, odd = nets
    pairs = [await net.run(0, 1) for net in nets]
    await lab.gateways[1].agent.kill9()
    try:
        fresh = await even.run(0, 1)  # ACTIVE, though the other gateway knows nothing of it
        assert (await fresh[0].guest.ping(fresh[1].guest, count=2)).lost == 0
        await learned(lab, *fresh)
        for a, b in pairs:  # a killed agent's relay goes on by the routes that it has
            assert (await a.guest.ping(b.guest, count=2)).lost == 0
    finally:
        await lab.gateways[1].agent.start()

    late = await odd.run(0, 1)
    assert (await late[0].guest.ping(late[1].guest, count=3)).lost == 0
    await learned(lab, *late)


async def test_an_instance_can_leave_a_shard_that_nobody_serves(lab: Lab) -> None:
    """An operator who removes a shard's last gateway leaves its VPCs without, not stuck."""
    net = await Net.create(lab)
    [instance] = await net.run(0)
    own = lab.gateways[int(net.vpc["vni"]) % 2]
    await lab.api.delete(f"/gateways/{own.id}")
    await lab.api.delete(f"/instances/{instance.id}")
    await lab.api.wait_gone(f"/instances/{instance.id}")
    await wait_until(lambda: _out_of_service(lab, own), "the gateway to stop serving")


async def _out_of_service(lab: Lab, gateway: Machine) -> bool:
    return (await lab.ask(gateway, "readyz")).status_code != 200
