"""A guest that floods or scans at full rate, on real devices: its neighbour connects all the while,
and what was connected before stays so."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from vswitch_world import Host, Vnic, World, make_world

from achelous_lab.netns.connection import ConnectionTester, Proto
from achelous_lab.netns.network import Network
from achelous_lab.process import Process, run
from achelous_lab.rundir import RunDir
from achelous_lab.waiting import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

DEAF = "table inet deaf { chain in { type filter hook input priority 0; meta l4proto tcp drop; }; }"
FLOODER = Path(__file__).parents[1] / "flooder.py"
CONNECTIONS = 200
FLOODED = 20_000
LONGEST_S = 60
ROUNDS = 4


@pytest.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    """Its hosts refuse a TCP packet of no session: one whose session was lost would be noticed."""
    with RunDir.create() as run_dir:
        async with (
            Network(run_dir) as network,
            make_world(run_dir, network, 2, 1, ACHELOUS_REFUSE_MIDSTREAM="1") as world,
        ):
            yield world


def flooding(vnic: Vnic, kind: str, target: Vnic) -> Process:
    """See flooder.py."""
    argv = [sys.executable, str(FLOODER), kind, str(vnic.guest.ip), str(target.guest.ip)]
    return vnic.guest.process("flooder", [*argv, str(LONGEST_S)], says="flooding")


@pytest.mark.parametrize("kind", ["syn", "scan", "udp"])
async def test_a_flood_leaves_the_neighbour_its_connections(world: World, kind: str) -> None:
    """The flooder, which answers nobody, meets its limit of sessions; not one of the neighbour's
    connections fails."""
    here, there = world.hosts
    flooder, neighbour = await here.vnic(), await here.vnic()
    server, victim = await there.vnic(), await there.vnic()
    await here.run(flooder, neighbour)
    await there.run(server, victim)
    for vnic, host in ((neighbour, here), (flooder, here), (server, there), (victim, there)):
        world.set_route(vnic, host)
    await run(["nft", DEAF], netns=flooder.guest.name, timeout=5)
    async with (
        victim.guest.serve_http(80),
        ConnectionTester(neighbour.guest, server.guest, Proto.TCP, 7010) as tester,
    ):
        assert await tester.wait_until(reachable=True) >= 0
        near, far = await connected(neighbour, server)
        with near, far:
            await echo(near, far)
            async with flooding(flooder, kind, victim) as flood:
                made = []
                for _ in range(ROUNDS):
                    await refused_more(here)
                    made += [await tester.check(timeout=5) for _ in range(CONNECTIONS // ROUNDS)]
                assert made.count(True) == CONNECTIONS
                await echo(near, far)
                assert flood.running


async def refused_more(host: Host) -> None:
    """Wait until the host has refused the flooder more than it may hold once again: its half open
    sessions give way to new ones all the while."""
    name = 'achelous_vswitch_drops_total{reason="session_limit"}'
    more = await host.metric(name) + FLOODED
    await wait_until(lambda: host.metric_is(name, above=more), "the flood", timeout=30)


async def connected(client: Vnic, server: Vnic) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection."""
    loop, address = asyncio.get_running_loop(), (str(server.guest.ip), 7011)
    near = await client.guest.namespace.socket(socket.SOCK_STREAM)
    with await server.guest.namespace.socket(socket.SOCK_STREAM) as listener:
        listener.bind(address)
        listener.listen()
        await loop.sock_connect(near, address)
        far, _ = await loop.sock_accept(listener)
    return near, far


async def echo(near: socket.socket, far: socket.socket) -> None:
    """A few bytes forth and back."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(5):
        for sender, receiver in ((near, far), (far, near)):
            await loop.sock_sendall(sender, b"still there?")
            assert await loop.sock_recv(receiver, 100) == b"still there?"
