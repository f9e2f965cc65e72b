"""VPCs whose routes are all programmed ahead, on the whole platform, beside one that learns."""

from collections.abc import AsyncIterator

import pytest
from platform_world import Net, known, learned, port_of, relayed, vswitch

from achelous_lab.api import Object
from achelous_lab.platform import Instance, Lab, Machine, Size
from achelous_lab.waiting import wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
async def lab() -> AsyncIterator[Lab]:
    async with Lab(Size(hosts=3, gateways=2)) as lab:
        yield lab


@pytest.fixture
async def ahead(lab: Lab) -> Net:
    """A tenant's network that is preprogrammed."""
    return await Net.create(lab, programming_model="preprogrammed")


async def held(lab: Lab, host: Machine, net: Net) -> Object | None:
    """What a host shows of a preprogrammed VPC."""
    shown = (await vswitch(lab, host))["preprogrammed"]
    return next((one for one in shown if one["vni"] == net.vpc["vni"]), None)


async def routes(lab: Lab, host: Machine, net: Net) -> int | None:
    """Number of the VPC's routes that a host holds; None: it does not follow the VPC."""
    shown = await held(lab, host, net)
    return shown["routes"] if shown else None


async def until_routes(net: Net, host: int, wanted: int | None) -> None:
    async def reached() -> bool:
        return await routes(net.lab, net.lab.hosts[host], net) == wanted

    await wait_until(reached, f"host {host} to hold {wanted} routes")


async def assert_direct(a: Instance, b: Instance, net: Net) -> None:
    """The first packet already goes from host to host."""
    before, sent = await relayed(net.lab), (await port_of(net.lab, a))["relayed"]
    assert (await a.guest.ping(b.guest, count=3)).lost == 0
    assert await relayed(net.lab) == before
    assert (await port_of(net.lab, a))["relayed"] == sent
    assert await known(net.lab, a.host, b) is None  # nothing was learned


async def test_active_means_that_every_host_of_the_vpc_has_the_route(ahead: Net) -> None:
    a, b = await ahead.run(0, 1)
    assert await routes(ahead.lab, ahead.lab.hosts[0], ahead) == 2
    assert await routes(ahead.lab, ahead.lab.hosts[1], ahead) == 2
    assert await routes(ahead.lab, ahead.lab.hosts[2], ahead) is None
    await assert_direct(a, b, ahead)

    (c,) = await ahead.run(2)

    for host in ahead.lab.hosts:
        assert await routes(ahead.lab, host, ahead) == 3
    await assert_direct(a, c, ahead)
    await assert_direct(c, b, ahead)


async def test_a_deletion_takes_the_route_off_every_host(ahead: Net) -> None:
    a, b, c = await ahead.run(0, 1, 1)

    await ahead.remove(c)

    for host in (0, 1):
        await until_routes(ahead, host, 2)
    assert (await a.guest.ping(c.guest.ip, count=1, wait=0.3)).received == 0
    await assert_direct(a, b, ahead)
    await ahead.remove(b)
    await until_routes(ahead, 1, None)  # its last port of the VPC
    await until_routes(ahead, 0, 1)


async def test_an_agent_that_was_away_catches_up(ahead: Net) -> None:
    a, b, c = await ahead.run(0, 1, 2)
    host = ahead.lab.hosts[0]
    async with a.guest.pinger(b.guest) as pinger:
        await host.agent.kill9()
        await ahead.remove(c)  # nobody waits for the dead
        (d,) = await ahead.run(1)
        await host.agent.start()
        await until_routes(ahead, 0, 3)
        assert (await pinger.stop()).lost == 0
    await assert_direct(a, d, ahead)


async def test_both_models_live_on_one_host(lab: Lab, net: Net, ahead: Net) -> None:
    a, b = await ahead.run(0, 1)
    theirs, others = await net.run(0, 1)

    await assert_direct(a, b, ahead)
    await theirs.guest.ping(others.guest, count=3)
    await learned(lab, theirs, others)

    assert a.guest.ip == theirs.guest.ip
    assert await routes(lab, lab.hosts[0], net) is None
