"""Routes pushed by gateways, on the whole platform: a host that never asks learns all the same."""

import pytest
from platform_world import Net, learned, relayed

from achelous_lab.platform import Lab, Size

pytestmark = pytest.mark.kernel


async def test_the_first_relayed_packet_brings_the_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACHELOUS_PUSH", "true")
    monkeypatch.setenv("ACHELOUS_LEARN_PACKETS", "1000000")
    async with Lab(Size(hosts=2, gateways=1)) as lab:
        net = await Net.create(lab)
        a, b = await net.run(0, 1)
        assert (await a.guest.ping(b.guest, count=1)).received == 1
        await learned(lab, a, b)

        settled = await relayed(lab)
        assert (await a.guest.ping(b.guest, count=20, interval=0.01)).lost == 0
        assert await relayed(lab) == settled
