"""A guest that floods or scans, on real devices: its neighbour connects all the while."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from vswitch_world import Vnic, World, make_world

from achelous_lab.netns.connection import ConnectionTester, Proto
from achelous_lab.netns.network import Network
from achelous_lab.rundir import RunDir
from achelous_lab.waiting import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

BURST = 500


@pytest.fixture
async def world() -> AsyncIterator[World]:
    with RunDir.create() as run_dir:
        async with Network(run_dir) as network, make_world(run_dir, network, 2, 1) as world:
            yield world


async def scan(vnic: Vnic) -> None:
    """One datagram to each port of each address, until cancelled: every one is a session."""
    with await vnic.guest.namespace.socket(socket.SOCK_DGRAM) as sender:
        for address in range(1 << 16):
            for port in range(1, BURST):
                target = f"10.1.{address >> 8}.{address & 0xFF or 1}"
                try:
                    sender.sendto(b"anyone?", (target, port))
                except OSError:
                    break  # its own network or broadcast address, or its queue is full
            await asyncio.sleep(0)


async def test_a_scan_of_the_vpc_leaves_the_neighbour_its_connections(
    world: World,
) -> None:
    here, there = world.hosts
    flooder, neighbour, server = await here.vnic(), await here.vnic(), await there.vnic()
    await here.run(flooder, neighbour)
    await there.run(server)
    world.set_route(server, there)
    world.set_route(neighbour, here)
    async with ConnectionTester(neighbour.guest, server.guest, Proto.TCP, 7010) as tester:
        assert await tester.wait_until(reachable=True) >= 0
        flood = asyncio.create_task(scan(flooder))
        try:
            refused = 'achelous_vswitch_drops_total{reason="session_limit"}'
            await wait_until(
                lambda: here.metric_is(refused, above=0), "the limit to be met", timeout=30
            )
            assert [await tester.check(timeout=5) for _ in range(20)] == [True] * 20
            assert not flood.done()
        finally:
            flood.cancel()
            await asyncio.gather(flood, return_exceptions=True)
