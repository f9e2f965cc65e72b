"""Waiting on simulated hosts, which live in this process: by looking again and again."""

import asyncio
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final

from achelous_loadgen.sim.host import SimulatedHost

_LOOK_S: Final = 0.001


async def until(
    condition: Callable[[], bool], what: str, timeout: float, *, look_s: float = _LOOK_S
) -> float:
    """`time.perf_counter()` when it held. Raises TimeoutError."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout:g} s: {what}")
        await asyncio.sleep(look_s)
    return time.perf_counter()


async def until_learned(
    host: SimulatedHost,
    vni: int,
    ip: bytes,
    vtep: IPv4Address,
    timeout: float,
    *,
    look_s: float = _LOOK_S,
) -> float:
    """A guest of ``host`` sends until its packets go to ``vtep`` without a gateway; when."""

    def direct() -> bool:
        host.path.send(vni, ip)
        return host.holds(vni, ip, vtep)

    what = f"host {host.place.vtep} has not learned {vtep}"
    return await until(direct, what, timeout, look_s=look_s)
