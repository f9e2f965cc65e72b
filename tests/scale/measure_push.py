"""Compares learning by asking with routes that gateways push: packets relayed, time, messages.

`PYTHONPATH=tests .venv/bin/python -m scale.measure_push`. Needs root, like the lab. Each
pair pings at once and on, every 2 ms; what was relayed until traffic went direct is counted.
"""

import argparse
import asyncio
import os
import statistics
import sys
from typing import Any, Final

import httpx
import msgspec
from platform_world import Net, port_of

from achelous_lab.platform import Lab, Size

_INTERVAL_S: Final = 0.002
_PINGS: Final = 100
_MODES: Final[dict[str, dict[str, str]]] = {
    "ask after 2 packets": {"ACHELOUS_PUSH": "false", "ACHELOUS_LEARN_PACKETS": "2"},
    "ask after 1 packet": {"ACHELOUS_PUSH": "false", "ACHELOUS_LEARN_PACKETS": "1"},
    "push": {"ACHELOUS_PUSH": "true", "ACHELOUS_LEARN_PACKETS": "1000000"},
}

Result = dict[str, Any]


async def measure(pairs: int) -> Result:
    """In the mode that the environment says."""
    async with Lab(Size(hosts=2, gateways=1)) as lab:
        net = await Net.create(lab)
        sent: list[int] = []
        before = await counted(lab)
        for _ in range(pairs):
            a, b = await net.run(0, 1)
            await a.guest.ping(b.guest, count=_PINGS, interval=_INTERVAL_S)
            sent.append((await port_of(lab, a))["relayed"])
        after = await counted(lab)
    return {
        "pairs": pairs,
        "relayed_packets_median": statistics.median(sent),
        "relayed_packets_max": max(sent),
        "direct_after_ms_median": round((statistics.median(sent)) * _INTERVAL_S * 1e3, 1),
        "learned": {name: after[name] - before.get(name, 0) for name in after},
    }


async def counted(lab: Lab) -> dict[str, float]:
    """What both hosts' agents counted of learning."""
    total: dict[str, float] = {}
    for host in lab.hosts:
        [address] = [
            path.read_text().strip()
            for path in lab.run_dir.path.glob("vswitch-*.http")
            if str(host.id) in path.name
        ]
        async with httpx.AsyncClient() as http:
            text = (await http.get(f"http://{address}/metrics")).text
        for line in text.splitlines():
            if line.startswith(("achelous_vswitch_fc_learned_total", "achelous_vswitch_learn_ev")):
                name, _, value = line.removeprefix("achelous_vswitch_").rpartition(" ")
                if "created" not in name:
                    total[name] = total.get(name, 0) + float(value)
    return total


def main() -> None:
    """Measure all modes and print the figures."""
    parser = argparse.ArgumentParser(description="Learning by asking against pushed routes.")
    parser.add_argument("--pairs", type=int, default=10)
    pairs = parser.parse_args().pairs
    result = {}
    for mode, settings in _MODES.items():
        os.environ |= settings
        result[mode] = asyncio.run(measure(pairs))
        sys.stderr.write(f"{mode}: {result[mode]}\n")
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(result), indent=2).decode() + "\n")


if __name__ == "__main__":
    main()
