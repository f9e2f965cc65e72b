"""Measures what keeping a host's entries true costs, by difference and entry by entry.

`PYTHONPATH=tests .venv/bin/python -m scale.measure_reconcile [--json FILE] [--quick]`. One host and
two gateways in this process, the real code of both and no bus between: bytes are RSP's payload, CPU
is this process's, split by who used it. Changes come every 10 ms, those of that time as one delta.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
import numpy as np
from rsp_world import VNI, TableClient, TableGateway, TableHost, addresses

from achelous_shared.route_following.plan import Delta
from achelous_shared.routes import ROUTE, RouteOp, Routes
from achelous_vswitch.fc import Route
from achelous_vswitch.settings import VswitchSettings

_ROUTES: Final = 100_000
_SIZES: Final = (1_900, 37_700)
_RATES: Final = (0, 1_157)
_STEP_S: Final = 0.05

Result = dict[str, Any]
Mode = Literal["per_entry", "delta"]

_MODES: Final[tuple[Mode, ...]] = ("per_entry", "delta")


class Clocked(TableClient):
    """Notes the CPU time that gateways use."""

    def __init__(self, gateways: list[TableGateway]) -> None:
        super().__init__(gateways)
        self.gateway_s = 0.0

    def _exchange_with(self, gateway: Any, request: bytes) -> bytes | None:
        begin = time.process_time()
        try:
            return super()._exchange_with(gateway, request)
        finally:
            self.gateway_s += time.process_time() - begin


class Churn:
    """Changes of random destinations, ``rate`` a second, at all gateways."""

    def __init__(self, gateways: list[TableGateway], rate: int) -> None:
        self._gateways = gateways
        self._rate = rate
        self._random = np.random.default_rng(3)
        self._ips = addresses(range(_ROUTES))
        self._begin = time.monotonic()
        self.revision = 1

    def catch_up(self) -> None:
        """Apply what is due by now, at once: nothing else runs meanwhile."""
        due = int((time.monotonic() - self._begin) * self._rate) + 1
        if self.revision < due:
            base, self.revision = self.revision, due
            picked = self._random.choice(_ROUTES, due - base, replace=False)
            entries = table(self._ips[picked], due)
            for gateway in self._gateways:
                drive(gateway.keeper.take(Delta(VNI, base, due, entries)))


def drive(work: Coroutine[Any, Any, None]) -> None:
    """Run what only lets others have their turn, and waits for nothing, to its end."""
    try:
        while True:
            work.send(None)
    except StopIteration:
        return


def table(ips: np.ndarray, revision: int) -> Routes:
    """Upserts that lead elsewhere at each revision."""
    entries = np.zeros(len(ips), ROUTE)
    entries["ip"], entries["op"], entries["revision"] = ips, RouteOp.UPSERT, revision
    entries["vtep"] = 1 + revision % 1000
    return entries


def filled(mode: Mode, size: int) -> tuple[TableHost, Clocked]:
    """A host that holds ``size`` entries of a VPC of `_ROUTES`."""
    gateways = [TableGateway(number, _ROUTES + 10) for number in range(2)]
    ips = addresses(range(_ROUTES))
    for gateway in gateways:
        gateway.take(0, 1, table(ips, 1))
    settings = VswitchSettings(
        nats_url="nats://nowhere", host_id=UUID(int=1), fc_idle_s=3600, reconcile=mode
    )
    host = TableHost(gateways, slots=65_536, settings=settings)
    client = Clocked(gateways)
    host.reconciler._client = client
    host.reconciler._delta._client = client
    now_ns = time.monotonic_ns()
    for number in np.random.default_rng(4).choice(_ROUTES, size, replace=False).tolist():
        route = Route(b"\0\0\0\2", bytes(6), 1500, 1, as_of=1)
        host.cache.put(VNI, ips[number].tobytes(), route, now_ns)
    return host, client


async def measure(host: TableHost, client: Clocked, size: int, rate: int, seconds: float) -> Result:
    """One figure."""
    churn = Churn(host.gateways, rate)
    task = asyncio.create_task(host.reconciler.run())
    await asyncio.sleep(1.0)  # the first checks
    client.bytes, client.messages, client.gateway_s = 0, 0, 0.0
    changing_s, begin, cpu = 0.0, time.monotonic(), time.process_time()
    while time.monotonic() < begin + seconds:
        before = time.process_time()
        churn.catch_up()
        changing_s += time.process_time() - before
        await asyncio.sleep(_STEP_S / 5)
    took = time.monotonic() - begin
    used = time.process_time() - cpu - changing_s
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return {
        "mode": host.settings.reconcile,
        "entries": size,
        "changes_per_s": rate,
        "rsp_bytes_per_s": round(client.bytes / took),
        "rsp_messages_per_s": round(client.messages / took, 1),
        "host_cpu_ms_per_s": round((used - client.gateway_s) / took * 1e3, 2),
        "gateways_cpu_ms_per_s": round(client.gateway_s / took * 1e3, 2),
        "late_ms": late(host),
    }


def late(host: TableHost) -> Result:
    """How late changes were acted on, where that is known: the buckets' upper bounds."""
    name = "achelous_vswitch_route_late_seconds"
    samples = [
        sample for metric in host.metrics.registry.collect() for sample in metric.samples
        if sample.name == f"{name}_bucket"
    ]  # fmt: skip
    total = samples[-1].value
    bounds = {
        f"p{quantile}": next(
            float(sample.labels["le"]) * 1e3
            for sample in samples
            if sample.value >= total * quantile / 100
        )
        for quantile in (50, 99)
        if total
    }
    return {"changes": total, **bounds}


def main() -> None:
    """Measure, and print or write the figures."""
    parser = argparse.ArgumentParser(description="Measures reconciliation of one host.")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--quick", action="store_true", help="two seconds each")
    options = parser.parse_args()
    seconds = 2.0 if options.quick else 5.0
    results = []
    for size in _SIZES:
        for rate in _RATES:
            for mode in _MODES:
                results.append(asyncio.run(measure(*filled(mode, size), size, rate, seconds)))
                sys.stderr.write(f"{results[-1]}\n")
    text = msgspec.json.format(msgspec.json.encode({"reconcile": results}), indent=2)
    sys.stdout.write(text.decode() + "\n")
    if options.json:
        options.json.write_bytes(text)


if __name__ == "__main__":
    main()
