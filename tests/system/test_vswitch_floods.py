"""A guest that floods or scans at full rate, on real devices: its neighbour connects all the while,
and what was connected before stays so."""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from vswitch_world import Vnic, World, make_world

from achelous_lab.netns.connection import ConnectionTester, Proto
from achelous_lab.netns.network import Network
from achelous_lab.process import Process, run
from achelous_lab.rundir import RunDir
from achelous_lab.waiting import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

DEAF = "table inet deaf { chain in { type filter hook input priority 0; meta l4proto tcp drop; }; }"
FLOODER = Path(__file__).parents[1] / "flooder.py"
CONNECTIONS = 200
LONGEST_S = 60
TWICE_HALF_OPEN_S = 2.5  # a half open session gives way after 1 s, with all those made with it


@pytest.fixture
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
                refused = 'achelous_vswitch_drops_total{reason="session_limit"}'
                await wait_until(
                    lambda: here.metric_is(refused, above=10_000), "the limit", timeout=30
                )
                made, until = [], time.monotonic() + TWICE_HALF_OPEN_S
                while len(made) < CONNECTIONS or time.monotonic() < until:
                    made.append(await tester.check(timeout=5))
                assert all(made), f"{made.count(False)} of {len(made)}"
                await echo(near, far)
                assert flood.running


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
