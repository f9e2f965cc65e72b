"""Waiting on simulated hosts, which live in this process and tell when they change."""

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from ipaddress import IPv4Address
from typing import Final

from achelous_loadgen.sim.host import SimulatedHost

_PACKET_S: Final = 0.001


async def until(
    condition: Callable[[], bool],
    what: str,
    timeout: float,
    host: SimulatedHost,
    *others: SimulatedHost,
) -> float:
    """`time.perf_counter()` when it held: looked at now, and with each change of these hosts.

    Raises TimeoutError.
    """
    if condition():
        return time.perf_counter()
    held: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def look() -> None:
        if not held.done() and condition():
            held.set_result(time.perf_counter())

    with ExitStack() as stack:
        for one in (host, *others):
            stack.enter_context(one.changes.looking(look))
        try:
            async with asyncio.timeout(timeout):
                return await held
        except TimeoutError:
            raise TimeoutError(f"after {timeout:g} s: {what}") from None


async def until_learned(
    host: SimulatedHost,
    vni: int,
    ip: bytes,
    vtep: IPv4Address,
    timeout: float,
    *,
    packet_s: float = _PACKET_S,
) -> float:
    """A guest of ``host`` sends each ``packet_s`` seconds until its packets go to ``vtep`` without
    a gateway; when that was."""

    async def send() -> None:
        while True:
            host.path.send(vni, ip)
            await asyncio.sleep(packet_s)

    what = f"host {host.place.vtep} has not learned {vtep}"
    sending = asyncio.create_task(send())
    try:
        return await until(lambda: host.holds(vni, ip, vtep), what, timeout, host)
    finally:
        sending.cancel()
