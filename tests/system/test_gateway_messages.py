"""A gateway whose route messages get lost, repeated and reordered on their way."""

from collections.abc import AsyncIterator

import numpy as np
import pytest
from gateway_world import (
    FakeController,
    GatewayUnderTest,
    assert_equal,
    following,
    gateway_of,
)

from achelous_lab.fault_proxy import Fate, FaultProxy, Rates
from achelous_lab.waiting import wait_until
from achelous_shared.bus_roles import Role

VPCS = (7, 8, 9)
CHANGES = 1500


@pytest.fixture
async def proxy(controller: FakeController) -> AsyncIterator[FaultProxy]:
    proxy = FaultProxy(controller.server.url(Role.GATEWAY), "achelous.v1.routes.")
    async with proxy.serving():
        yield proxy


@pytest.fixture
async def gateway(controller: FakeController, proxy: FaultProxy) -> AsyncIterator[GatewayUnderTest]:
    """Behind the proxy, which does nothing yet."""
    async with gateway_of(controller, DATAPLANE="none", NATS_URL=proxy.url) as gateway:
        for vni in VPCS:
            controller.change(vni, put=range(50))
        await gateway.process.start()
        await following(controller, VPCS[0])
        yield gateway


async def test_its_tables_are_the_controllers_all_the_same(
    gateway: GatewayUnderTest, controller: FakeController, proxy: FaultProxy
) -> None:
    dice = np.random.default_rng(3)
    proxy.rates = Rates(dropped=0.01, repeated=0.01, late=0.01)
    for _ in range(CHANGES):
        picked = dice.choice(600, 7, replace=False).tolist()
        change = controller.change(int(dice.choice(VPCS)), put=picked[:4], delete=picked[4:])
        await controller.publish(change)

    await assert_equal(gateway, controller)
    assert min(proxy.done[fate] for fate in Fate) > 0


async def test_the_loss_of_the_last_message_is_noticed_by_the_next_heartbeat(
    gateway: GatewayUnderTest, controller: FakeController, proxy: FaultProxy
) -> None:
    """With nothing that would follow: neither another change nor an announcement."""
    proxy.rates = Rates(dropped=1.0)
    await controller.publish(controller.change(VPCS[0], put=[100], delete=[3]))
    await wait_until(lambda: proxy.done[Fate.DROPPED] > 0, "the loss")
    proxy.rates = Rates()
    await assert_equal(gateway, controller)
