"""What a preprogrammed VPC costs one host: the first reading, a delta, memory; as an agent does it.

`PYTHONPATH=tests .venv/bin/python -m scale.measure_preprogrammed [--routes N]`. Needs root. Real
PostgreSQL, controller and NATS as processes; the host's part runs in this one, on the packet path
in the kernel, without ports.
"""

import argparse
import asyncio
import os
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import msgspec
from scale.measure_gateway import DELTA, Deltas
from scale.world import BPF_DIR, REVISION, VNI, World, rss_mib, world

from achelous_lab import syscalls
from achelous_lab.waiting import wait_until
from achelous_shared.bpf import NetNs, ensure_bpffs
from achelous_shared.bus import Bus
from achelous_shared.bus_roles import Role
from achelous_vswitch.dataplane import Dataplane
from achelous_vswitch.fc import ForwardingCache
from achelous_vswitch.kernel import open_dataplane
from achelous_vswitch.preprogrammed import Preprogrammed
from achelous_vswitch.settings import VswitchSettings

_DELTAS: Final = 10
_MIB: Final = 2**20

Result = dict[str, Any]


@contextmanager
def packet_path(platform: World, routes: int) -> Iterator[tuple[VswitchSettings, Dataplane]]:
    """Of a host with room for ``routes``; gone at the end."""
    bpffs = platform.run_dir.subdir("bpffs")
    ensure_bpffs(bpffs)
    settings = VswitchSettings(
        host_id=uuid4(),
        nats_url=platform.nats.url(Role.VSWITCH),
        bpffs=bpffs / "host",
        max_preprogrammed=routes,
    )
    netns = NetNs(None)
    try:
        with open_dataplane(settings, netns) as dataplane:
            yield settings, dataplane
    finally:
        netns.close()
        syscalls.unmount(bpffs)


def cpu_seconds() -> float:
    """Of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def locked_mib(dataplane: Dataplane) -> float:
    """Kernel memory of the two maps that hold routes."""
    index: Any = dataplane.fc_index
    lines = Path(f"/proc/self/fdinfo/{index.fd}").read_text().splitlines()
    of_index = next(int(line.split()[1]) for line in lines if line.startswith("memlock:"))
    return (of_index + dataplane.fc.nbytes) / _MIB


async def until(host: Preprogrammed, revision: int) -> None:
    """The VPC to be held at this revision."""
    await wait_until(
        lambda: int(host.revisions([VNI])["revision"][0]) == revision,
        f"revision {revision}", timeout=120, interval=0.001,
    )  # fmt: skip


async def measure_host(platform: World, bus: Bus, source: Deltas, routes: int) -> Result:
    """Everything, on a packet path of its own."""
    with packet_path(platform, routes) as (settings, dataplane):
        cache = ForwardingCache(dataplane.fc[: settings.max_fc + 1], dataplane.fc_index)
        host = Preprogrammed(bus, dataplane, cache, settings, lambda: None)
        task = asyncio.create_task(host.run())
        rss, cpu, begin = rss_mib(os.getpid()), cpu_seconds(), time.perf_counter()
        host.want([VNI])
        await until(host, REVISION)
        first = {"seconds": time.perf_counter() - begin, "cpu_s": cpu_seconds() - cpu}
        took, cpu = [], cpu_seconds()
        for _ in range(_DELTAS):
            begin = await source.publish()
            await until(host, source.revision)
            took.append((time.perf_counter() - begin) * 1e3)
        spent = (cpu_seconds() - cpu) / _DELTAS * 1e3
        memory = rss_mib(os.getpid()) - rss
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return {
            "routes": len(host.table),
            "first_reading": {name: round(value, 2) for name, value in first.items()},
            "delta": {
                "entries": min(DELTA, routes),
                "published_to_held_ms": round(statistics.median(took), 1),
                "cpu_ms": round(spent, 1),
            },
            "agent_mib": round(memory),
            "kernel_mib": round(locked_mib(dataplane)),
        }


async def measure(routes: int) -> Result:
    """On a platform with so many routes in one VPC."""
    async with world(routes) as platform:
        url, observer = platform.nats.url(Role.VSWITCH), platform.nats.url(Role.OBSERVER)
        async with (
            Bus.connect(url, role=Role.VSWITCH, name="preprogrammed") as bus,
            Bus.connect(observer, role=Role.OBSERVER, name="scale") as other,
        ):
            return await measure_host(platform, bus, Deltas(other, routes), routes)


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description="Measures a host of a preprogrammed VPC.")
    parser.add_argument("--routes", type=int, default=1_500_000)
    os.environ.setdefault("ACHELOUS_BPF_DIR", str(BPF_DIR))
    result = asyncio.run(measure(parser.parse_args().routes))
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(result), indent=2).decode() + "\n")


if __name__ == "__main__":
    main()
