"""The packet path beside the kernel's own, as ratios taken in turn: what `make bench` runs."""

import argparse
import asyncio
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any, Final

import msgspec
from platform_world import Net, learned
from scale.program_costs import program_costs

from achelous_lab.netns import links
from achelous_lab.netns.cables import Wires
from achelous_lab.netns.guest import Guest, Nic
from achelous_lab.netns.underlay import Node
from achelous_lab.platform import Lab, Size
from achelous_lab.process import run
from achelous_lab.tour.stage import kernel_nodes, kernel_pair
from achelous_shared.bpf import missing_for_ebpf

Pair = tuple[Guest, Guest]
Measure = Callable[[Guest, Guest], Awaitable[float]]

OUTPUT: Final = Path("build/bench/datapath.json")
TARGETS: Final[dict[str, dict[str, float]]] = {
    "ratio_vs_kernel_vxlan": {"udp_pps": 1.8, "tcp": 1.1, "connections": 1.3, "rtt": 0.85},
    "ratio_vs_direct_veth": {"tcp": 0.75, "udp_pps": 0.55},
    "ns": {"session_hit_hot": 150, "session_hit_400k": 450, "slow_path_100_rules": 1500},
}
PORT: Final = "7001"
UDP_S: Final = 1.0
CONNECTIONS_S: Final = 1.0
_SOURCE: Final = Path(__file__).with_name("load.c")
AT_MOST: Final = {"rtt", "session_hit_hot", "session_hit_400k", "slow_path_100_rules"}


@cache
def load() -> str:
    """Our load generator, compiled for this machine."""
    path = Path("build/bench/load").absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    options = ["-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["clang-16", *options, "-o", str(path), str(_SOURCE)], check=True)
    return str(path)


class Ratio(msgspec.Struct, frozen=True):
    """Ours by theirs, formed within each round."""

    median: float
    min: float
    max: float
    rounds: int

    @classmethod
    def of(cls, ours: list[float], theirs: list[float]) -> "Ratio":
        each = [a / b for a, b in zip(ours, theirs, strict=True)]
        return cls(statistics.median(each), min(each), max(each), len(each))


@dataclass(frozen=True, slots=True)
class Paths:
    """Two guests each, joined in three ways. ``nodes``: the machines of the kernel's pair."""

    ours: Pair
    kernel: Pair
    direct: Pair
    nodes: Sequence[Node]

    async def bare(self, one: Measure) -> float:
        """A figure of the kernel's pair while no firewall looks at what passes its bridges."""
        await self._set_firewall(links.BridgeFirewall.OFF)
        try:
            return await one(*self.kernel)
        finally:
            await self._set_firewall(links.BridgeFirewall.ON)

    async def _set_firewall(self, state: links.BridgeFirewall) -> None:
        for node in self.nodes:
            await node.namespace.call(partial(links.set_bridge_firewall, state))


async def tcp(client: Guest, server: Guest) -> float:
    """One stream, bit/s."""
    return (await client.iperf3(server, 1)).bits_per_second


async def udp_pps(client: Guest, server: Guest) -> float:
    """Datagrams of 18 bytes that a socket in the other guest gets, per second."""
    receiver = server.process("load", [load(), "receive", PORT, f"{UDP_S}"], says="listening")
    async with receiver:
        sending = [load(), "send", str(server.ip), PORT, f"{UDP_S + 1}"]
        await run(sending, netns=client.name, timeout=UDP_S + 10)
        await receiver.wait(10)
    return int(receiver.output().split()[-1]) / UDP_S


async def connections(client: Guest, server: Guest) -> float:
    """Connect, request, reply, close: per second, one after the other."""
    async with server.process("load", [load(), "answer", PORT], says="listening"):
        asking = [load(), "connect", str(server.ip), PORT, f"{CONNECTIONS_S}"]
        done = await run(asking, netns=client.name, timeout=CONNECTIONS_S + 10)
    return int(done.stdout) / CONNECTIONS_S


async def rtt(client: Guest, server: Guest) -> float:
    """Median of 200 pings, seconds."""
    return statistics.median((await client.ping(server, count=200, interval=0.002)).rtts)


MEASURES: Final[dict[str, Measure]] = {
    "udp_pps": udp_pps,
    "tcp": tcp,
    "connections": connections,
    "rtt": rtt,
}


@asynccontextmanager
async def three_paths() -> AsyncIterator[Paths]:
    """All at once, so that rounds can take them in turn."""
    async with Lab(Size(hosts=2, gateways=1, cabling=Wires)) as lab, AsyncExitStack() as stack:
        underlay, nodes = lab.network.underlay, await kernel_nodes(lab.network)
        await underlay.join(*(host.node for host in lab.hosts))
        await underlay.join(*nodes)
        net = await Net.create(lab)
        a, b = await net.run(0, 1)
        # No gateway is on that wire: what would be relayed is lost, and learned of all the same.
        for one, other in ((a, b), (b, a)):
            await one.guest.ping(other.guest, count=3)
        await learned(lab, a, b)
        kernel = await kernel_pair(lab.network, nodes, stack)
        await kernel[0].ping(kernel[1], count=1)
        yield Paths((a.guest, b.guest), kernel, await direct_pair(lab), nodes)


async def direct_pair(lab: Lab) -> Pair:
    """Two guests on the two ends of one cable."""
    one, two = await lab.network.guest("direct1"), await lab.network.guest("direct2")
    address = IPv4Interface("10.98.0.2/24")
    nic = Nic(mac="02:00:00:00:98:01", address=IPv4Interface("10.98.0.1/24"))
    cable = await one.add_nic(lab.network.cables, nic)
    await cable.plug(two.namespace, "eth0")
    await two.namespace.netlink(lambda n: links.configure(n, "eth0", address=address))
    two.nics.append(Nic(mac="", address=address))
    return one, two


async def measure(rounds: int) -> dict[str, dict[str, Ratio]]:
    """Every figure on every path in turn, `rounds` times."""
    samples: dict[str, dict[str, list[float]]] = {
        name: {"ours": [], "kernel": [], "bare": [], "direct": []} for name in MEASURES
    }
    async with three_paths() as paths:
        pairs = {"ours": paths.ours, "kernel": paths.kernel, "direct": paths.direct}
        for number in range(rounds):
            for name, one in MEASURES.items():
                for path, pair in pairs.items():
                    samples[name][path].append(await one(*pair))
                samples[name]["bare"].append(await paths.bare(one))
                last = {path: values[-1] for path, values in samples[name].items()}
                say(f"round {number + 1} of {rounds}: {name} {last}")
    kernel, bare = (
        {name: Ratio.of(of["ours"], of[path]) for name, of in samples.items()}
        for path in ("kernel", "bare")
    )
    direct = {
        name: Ratio.of(samples[name]["ours"], samples[name]["direct"])
        for name in TARGETS["ratio_vs_direct_veth"]
    }
    return {
        "ratio_vs_kernel_vxlan": kernel,
        "ratio_vs_kernel_vxlan_without_bridge_firewall": bare,
        "ratio_vs_direct_veth": direct,
    }


def judged(result: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """A line a figure: figure, target, met or missed, and the figure of the run before."""
    lines = []
    for group, targets in TARGETS.items():
        for name, target in targets.items():
            figure = _figure(result, group, name)
            met = figure <= target if name in AT_MOST else figure >= target
            bound = "at most" if name in AT_MOST else "at least"
            earlier = before.get(group, {}).get(name)
            was = "" if earlier is None else f", was {_figure(before, group, name):.2f}"
            lines.append(
                f"{'met   ' if met else 'MISSED'} {group}.{name} {figure:.2f}"
                f" ({bound} {target}{was})"
            )
    for name, ratio in result["ratio_vs_kernel_vxlan_without_bridge_firewall"].items():
        lines.append(f"       {name} beside a kernel bridge without firewall: {ratio.median:.2f}")
    for group in ("verifier", "code_bytes", "ns"):
        for name, figure in result[group].items():
            earlier = before.get(group, {}).get(name)
            grown = "" if not earlier else f", {figure / earlier - 1:+.1%} since the last run"
            lines.append(f"       {group}.{name} {figure:.0f}{grown}")
    return lines


def _figure(result: Any, group: str, name: str) -> float:
    value = msgspec.to_builtins(result)[group][name]
    return float(value["median"] if isinstance(value, dict) else value)


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main() -> int:
    """Measure, print the figures beside their targets, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--json", type=Path, default=OUTPUT, help="where the figures go")
    options = parser.parse_args()
    if missing := missing_for_ebpf():
        say("this machine lacks what the packet path needs: " + "; ".join(missing))
        return 1
    say("programs by test-run")
    result = program_costs()
    result |= asyncio.run(measure(1 if options.quick else max(1, options.rounds)))
    before = msgspec.json.decode(options.json.read_bytes()) if options.json.exists() else {}
    sys.stdout.write("\n".join(judged(result, before)) + "\n")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
