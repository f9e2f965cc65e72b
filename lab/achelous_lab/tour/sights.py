"""What the tour shows. Each sight does something to the platform and says what came of it."""

import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from achelous_lab.api import Rule
from achelous_lab.netns.connection import ConnectionTester, Proto
from achelous_lab.tour.stage import Stage, kernel_nodes, kernel_pair
from achelous_lab.waiting import wait_until

_ROUNDS: Final = 3
_IPERF_S: Final = 1


@dataclass(frozen=True, slots=True)
class Shown:
    """A claim, what was measured, and whether the claim held."""

    claim: str
    figure: str
    held: bool


Sight = Callable[[Stage], Awaitable[Shown]]


async def learning(stage: Stage) -> Shown:
    """First packets by a gateway, then learned, then direct."""
    before = await stage.relayed_by_gateways()
    first = await stage["red1"].ping(stage["red2"], count=2, interval=0.01)
    relayed = await stage.relayed_by_gateways() - before
    learned_after = await wait_until(
        lambda: _both_know(stage), "both hosts to learn the other's route", timeout=3
    )
    settled = await stage.relayed_by_gateways()
    then = await stage["red1"].ping(stage["red2"], count=50, interval=0.01)
    still = await stage.relayed_by_gateways() - settled
    held = first.received == 2 and relayed >= 1 and then.lost == 0 and still == 0
    figure = (
        f"first pings answered, {relayed} packets relayed;"
        f" learned within {learned_after * 1000:.0f} ms;"
        f" then {then.received}/{then.sent} direct, {still} relayed"
    )
    return Shown("the first packets go by a gateway, the next ones go direct", figure, held)


async def _both_know(stage: Stage) -> bool:
    return await stage.knows("red1", "red2") and await stage.knows("red2", "red1")


async def reach(stage: Stage) -> Shown:
    """Ping and curl across hosts."""
    ping = await stage["red1"].ping(stage["red3"], count=20, interval=0.01)
    async with stage["red3"].serve_http() as url:
        page = await stage["red1"].curl(url)
    median = statistics.median(ping.rtts) * 1e6 if ping.rtts else float("nan")
    figure = f"{ping.received}/{ping.sent} pings, {median:.0f} us; curl {page.status}"
    return Shown("ping and curl across hosts", figure, ping.lost == 0 and page.ok)


async def speed(stage: Stage) -> Shown:
    """iperf3 in turn with the same over the kernel's own bridge and VXLAN."""
    async with AsyncExitStack() as stack:
        network = stage.lab.network
        client, server = await kernel_pair(network, await kernel_nodes(network), stack)
        ours, kernels = [], []
        for _ in range(_ROUNDS):
            mine = await stage["red1"].iperf3(stage["red2"], _IPERF_S)
            theirs = await client.iperf3(server, _IPERF_S)
            ours.append(mine.bits_per_second / 1e9)
            kernels.append(theirs.bits_per_second / 1e9)
    ratio = statistics.median(a / b for a, b in zip(ours, kernels, strict=True))
    figure = (
        f"{statistics.median(ours):.1f} Gbit/s, kernel bridge + VXLAN"
        f" {statistics.median(kernels):.1f}: ratio {ratio:.2f} (medians of {_ROUNDS} rounds)"
    )
    return Shown("TCP beside the kernel's bridge and VXLAN, same run", figure, min(ours) > 0)


async def isolation(stage: Stage) -> Shown:
    """Two VPCs with the same addresses do not see each other."""
    async with stage["red2"].serve_http() as url, stage["blue2"].serve_http() as same_url:
        red = await stage["red1"].curl(url)
        blue = await stage["blue1"].curl(same_url)
    names = (red.body.decode().strip(), blue.body.decode().strip())
    expected = (stage["red2"].name, stage["blue2"].name)
    only_red = await stage.lab.instance(
        stage.red.tenant, stage.red.subnet, "red-only", ip="10.0.0.99",
        groups=[stage.red.open_group],
    )  # fmt: skip
    seen = await stage["red1"].ping(only_red.guest, count=3)
    unseen = await stage["blue1"].ping(only_red.guest, count=3, wait=0.3)
    held = names == expected and seen.lost == 0 and unseen.received == 0
    figure = (
        f"http://{stage['red2'].ip}/ is each VPC's own guest; an address of one VPC:"
        f" {seen.received}/3 answers inside, {unseen.received}/3 from the other"
    )
    return Shown("VPCs with the same addresses are apart", figure, held)


async def security_group(stage: Stage) -> Shown:
    """Blocked, then admitted by a rule, without touching the guests."""
    tenant = stage.red.tenant
    closed = await tenant.security_group(stage.red.vpc, "web")
    web = await stage.lab.instance(
        tenant, stage.red.subnet, "web", host=stage.lab.hosts[1], groups=[closed]
    )
    async with ConnectionTester(stage["red1"], web.guest, Proto.TCP, 8080) as tester:
        blocked = not await tester.check()
        started = time.monotonic()
        await tenant.add_rule(closed, Rule(protocol="tcp", port_min=8080, port_max=8080))
        await tester.wait_until(reachable=True, timeout=5)
        admitted_after = time.monotonic() - started
    ping = await stage["red1"].ping(web.guest, count=2, wait=0.3)
    figure = (
        f"port 8080 {'blocked' if blocked else 'OPEN'} without a rule, open {admitted_after:.2f} s"
        f" after adding one; ping, which no rule admits: {ping.received}/2"
    )
    return Shown("a security group blocks, then admits", figure, blocked and ping.received == 0)


async def deletion(stage: Stage) -> Shown:
    """A deleted instance is unreachable within a second."""
    victim = await stage.lab.instance(
        stage.red.tenant, stage.red.subnet, "victim", host=stage.lab.hosts[2],
        groups=[stage.red.open_group],
    )  # fmt: skip
    async with stage["red1"].pinger(victim.guest) as pinger:
        await pinger.wait_for_replies(20)
        started = time.monotonic()
        await stage.lab.api.delete(f"/instances/{victim.id}")
        took = await pinger.last_reply() - started
    gone = await stage.lab.api.wait_gone(f"/instances/{victim.id}")
    await stage.lab.unplug(victim)
    figure = f"last answer {took:.2f} s after the request, removed {gone + took:.2f} s after it"
    return Shown("a deleted instance stops being reachable within 1 s", figure, took <= 1.0)


async def agent_restart(stage: Stage) -> Shown:
    """kill -9 of a vSwitch agent under traffic loses nothing."""
    host = stage.guests["red1"].host
    async with stage["red1"].pinger(stage["red2"], interval=0.002) as pinger:
        await pinger.wait_for_replies(100)
        await host.agent.kill9()
        await pinger.wait_for_replies(250)
        await host.agent.start()
        await pinger.wait_for_replies(250)
        count = await pinger.stop()
    figure = f"{count.received}/{count.sent} answered while {host.name}'s agent was killed and back"
    return Shown("an agent killed and restarted under traffic", figure, count.lost == 0)


async def gateway_loss(stage: Stage) -> Shown:
    """A gateway's machine dies: known flows do not notice, new destinations go on within 1 s."""
    dead = stage.lab.gateways[0]
    fresh = [("blue1", "blue3"), ("blue2", "blue3"), ("blue3", "blue1"), ("blue3", "blue4")]
    async with stage["red1"].pinger(stage["red2"], interval=0.005) as known:
        await known.wait_for_replies(50)
        started = time.monotonic()
        await dead.node.down()
        waits = []
        for source, target in fresh:
            await wait_until(
                lambda a=source, b=target: _answers(stage, a, b),  # type: ignore[misc]
                f"{target} to be reachable from {source}",
                timeout=10,
            )
            waits.append(time.monotonic() - started)
        count = await known.stop()
    await dead.node.up()
    figure = (
        f"a known flow lost {count.lost} of {count.sent}; {len(fresh)} pairs that had never talked"
        f" all did after {max(waits):.2f} s"
    )
    held = count.lost == 0 and max(waits) <= 1.0
    return Shown("a gateway killed under traffic", figure, held)


async def _answers(stage: Stage, source: str, target: str) -> bool:
    return (await stage[source].ping(stage[target], count=1, wait=0.1)).received == 1


SIGHTS: Final[tuple[Sight, ...]] = (
    learning,
    reach,
    speed,
    isolation,
    security_group,
    deletion,
    agent_restart,
    gateway_loss,
)
