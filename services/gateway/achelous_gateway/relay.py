"""The data plane as the gateway sees it: a relay in eBPF, or none."""

import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import UUID

import numpy as np
import numpy.typing as npt

from achelous_gateway.settings import GatewaySettings
from achelous_gateway.shared_table import SharedTable, map_sizes
from achelous_shared.bpf import (
    BpfMap,
    BpfObject,
    Copies,
    NetNs,
    RingBuffer,
    attach_tcx,
    dtype_of,
    ensure_bpffs,
    enum_of,
    load_traced,
    object_path,
    traced_path,
)
from achelous_shared.bpf.carry import open_pinned
from achelous_shared.messages import GatewayAddress
from achelous_shared.route_following.table import KEY, VALUE, Records, RouteTable
from achelous_shared.tracing import Tracer

VTEP: Final = np.dtype([("vtep", ">u4")])
"""An underlay address."""

_PART: Final = 65_536
_LEGACY: Final = "routes"
"""The hash table in which releases before the shared table kept routes."""
_TABLE: Final = ("route_table", "route_buckets", "route_passed", "route_keys", "route_values")
COPIES: Final = Copies(
    shared=frozenset(("config", "vteps", *_TABLE)),
    whole=frozenset(),
    asked=frozenset(("pushed",)),
)


@dataclass(frozen=True, slots=True)
class RelayCounters:
    """Totals since the data plane's maps were made. ``drops`` by reason, those that occurred."""

    relayed_packets: int = 0
    relayed_bytes: int = 0
    probes: int = 0
    drops: dict[str, int] = field(default_factory=dict)


class Relay(Protocol):
    """What forwards packets by the routes, whether this process lives or not."""

    table: RouteTable
    """By which it does: what is written there holds at once."""
    relayed_for: RingBuffer | None
    """Events (`ach_relayed_event`) of hosts whose packets it relayed, if it can tell."""
    ifindex: int
    """Of the underlay device; 0: it has none."""
    tracer: Tracer | None
    """Runs single frames beside the traffic, if it can."""

    async def run(self) -> None:
        """Until cancelled, or at once if there is nothing to do beside."""

    def admit(self, hosts: Records, gateways: Sequence[GatewayAddress]) -> None:
        """Relay for these ``hosts`` (`VTEP`), as the one of the ``gateways`` that has our id."""

    def vouch(self) -> None:
        """Say to whoever probes that the tables were in step just now."""

    def trouble(self) -> str | None:
        """Why it can not relay yet."""

    def counters(self) -> RelayCounters:
        """What it counted."""


class NoRelay:
    """For machines without eBPF, and for tests of load: tables and RSP alone."""

    relayed_for: RingBuffer | None = None
    ifindex: int = 0
    tracer: Tracer | None = None

    def __init__(self, capacity: int) -> None:
        self.table = RouteTable(capacity)

    async def run(self) -> None:
        """See Relay."""

    def admit(self, hosts: Records, gateways: Sequence[GatewayAddress]) -> None:
        """See Relay."""

    def vouch(self) -> None:
        """See Relay."""

    def trouble(self) -> str | None:
        """See Relay."""
        return None

    def counters(self) -> RelayCounters:
        """See Relay."""
        return RelayCounters()


class BpfRelay:
    """The program `relay` on the underlay device, and its maps. Use `BpfRelay.open`."""

    def __init__(
        self,
        loaded: BpfObject,
        table: SharedTable,
        gateway_id: UUID,
        ifindex: int,
        tracer: Tracer | None = None,
    ) -> None:
        self.table: RouteTable = table
        self._shared = table
        self.ifindex = ifindex
        self.tracer = tracer
        self._gateway_id = gateway_id
        self._vteps = loaded.maps["vteps"]
        self._counters = loaded.maps["counters"]
        self._kinds = enum_of(loaded, "ach_vtep_kind")
        self._reasons = {
            number: name.removeprefix("ACH_DROP_").lower()
            for name, number in enum_of(loaded, "ach_drop").items()
        }
        self._config = loaded.maps["config"].mmap()[0]
        self._config["underlay_ifindex"] = ifindex
        self.relayed_for: RingBuffer | None = RingBuffer(
            loaded.maps["relayed_for"], dtype_of(loaded, "ach_relayed_event")
        )

    def push(self, settings: GatewaySettings) -> None:
        """Tell by `relayed_for` of what is relayed, or not, as the settings say."""
        interval_ns = int(settings.push_interval_s * 1e9) if settings.push else 0
        self._config["push_per_window"] = settings.push_per_window
        self._config["push_interval_ns"] = interval_ns

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: GatewaySettings) -> AsyncIterator["BpfRelay"]:
        """Load or re-adopt it; on exit the packets go on as they were."""
        ensure_bpffs(settings.bpffs)
        netns, inside = NetNs(settings.netns), NetNs(settings.netns)
        device = settings.underlay_device
        try:
            with BpfObject.open(
                object_path("gateway"),
                pin_dir=settings.bpffs / "maps",
                max_entries=map_sizes(settings.route_capacity),
            ) as loaded:
                table = SharedTable(settings.route_capacity, loaded.maps)
                legacy = settings.bpffs / "maps" / _LEGACY
                if legacy.exists():
                    _take_over(legacy, table)
                ifindex = await netns.run(lambda: _ifindex(device, settings.netns))
                tracer = Tracer(
                    lambda: load_traced(traced_path("gateway"), loaded.maps, COPIES), inside
                )
                relay = cls(loaded, table, settings.gateway_id, ifindex, tracer)
                relay.push(settings)
                program, pin = loaded.programs["relay"], settings.bpffs / "links" / device
                link = await netns.run(lambda: attach_tcx(program, ifindex, pin=pin))
                legacy.unlink(missing_ok=True)
                try:
                    yield relay
                finally:
                    link.close()
                    tracer.close()
        finally:
            netns.close()
            inside.close()

    async def run(self) -> None:
        """See Relay."""
        while True:
            await self._shared.unsettled.wait()
            await self._shared.settle_aside()

    def admit(self, hosts: Records, gateways: Sequence[GatewayAddress]) -> None:
        """See Relay."""
        wanted = dict.fromkeys(hosts["vtep"].tolist(), self._kinds["ACH_VTEP_HOST"])
        for gateway in gateways:
            wanted[gateway.vtep] = self._kinds["ACH_VTEP_GATEWAY"]
        _replace(self._vteps, wanted)
        own = [gateway.vtep for gateway in gateways if gateway.gateway_id == self._gateway_id]
        self._config["vtep"] = own[0] if own else 0

    def vouch(self) -> None:
        """See Relay."""
        self._config["heartbeat_ns"] = time.monotonic_ns()

    def trouble(self) -> str | None:
        """See Relay."""
        if self._config["vtep"]:
            return None
        return f"the fleet document lists no gateway {self._gateway_id}"

    def counters(self) -> RelayCounters:
        """See Relay."""
        per_cpu = self._counters.per_cpu_all()[0]
        drops = per_cpu["drops"].sum(axis=0)
        return RelayCounters(
            relayed_packets=int(per_cpu["relayed_packets"].sum()),
            relayed_bytes=int(per_cpu["relayed_bytes"].sum()),
            probes=int(per_cpu["probes"].sum()),
            drops={
                self._reasons.get(number, str(number)): int(drops[number])
                for number in np.flatnonzero(drops).tolist()
            },
        )


def _ifindex(device: str, netns: Path | None) -> int:
    try:
        return socket.if_nametoindex(device)
    except OSError as error:
        where = netns or "this network namespace"
        raise FileNotFoundError(
            f"no device {device} in {where}: set ACHELOUS_UNDERLAY_DEVICE and ACHELOUS_NETNS"
        ) from error


def _take_over(pin: Path, table: RouteTable) -> None:
    """The routes of a pinned hash table that are not in ``table``, as far as they fit."""
    pinned = open_pinned(pin.name, pin)
    try:
        shape = pinned.shape
        held = BpfMap(pin.name, pinned.fd, shape.layout, shape.key, shape.value)
        cursor: bytes | None = None
        while True:
            keys, values, cursor = held.scan(cursor, _PART)
            new = table.lookup(keys["vni"], keys["ip"]) < 0
            new &= np.cumsum(new) <= table.capacity - len(table)
            table.seed(_converted(keys[new], KEY), _converted(values[new], VALUE))
            if cursor is None:
                return
    finally:
        pinned.close()


def _converted(records: Records, dtype: np.dtype[Any]) -> Records:
    """Records of another layout with the same fields."""
    converted = np.zeros(len(records), dtype)
    for name in dtype.names or ():
        converted[name] = records[name]
    return converted


def _replace(vteps: BpfMap, wanted: dict[int, int]) -> None:
    """Make the map hold ``wanted``; what stays is not touched."""
    keys, values = vteps.lookup_batch_all()
    held: dict[int, int] = dict(zip(keys.tolist(), values.tolist(), strict=True))
    _drop(vteps, [vtep for vtep in held if vtep not in wanted])
    new = [(vtep, kind) for vtep, kind in wanted.items() if held.get(vtep) != kind]
    if new:
        columns: npt.NDArray[np.int64] = np.array(new, np.int64)
        vteps.update_batch(
            columns[:, 0].astype(vteps.key_dtype), columns[:, 1].astype(vteps.value_dtype)
        )


def _drop(vteps: BpfMap, gone: list[int]) -> None:
    if gone:
        vteps.delete_batch(np.array(gone, vteps.key_dtype))
