"""Gateways that are nothing but real tables, and a client that asks them without a bus."""

import asyncio
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np
from vswitch_memory import memory_dataplane

from achelous_gateway.journal import RspJournal
from achelous_gateway.rsp_server import RspServer
from achelous_gateway.stats import Stats
from achelous_shared import rsp, rsp_changes
from achelous_shared.route_following.index import Rows
from achelous_shared.route_following.keeper import Keeper
from achelous_shared.route_following.plan import Delta, Vpc
from achelous_shared.route_following.table import RouteTable
from achelous_shared.routes import ROUTE, RouteOp, Routes, ip_bytes
from achelous_shared.rsp import Capability, Options
from achelous_shared.rsp_changes import Changes
from achelous_vswitch.dataplane import Dataplane
from achelous_vswitch.fc import ForwardingCache
from achelous_vswitch.gateways import Gateway
from achelous_vswitch.learner import Learner
from achelous_vswitch.metrics import Metrics
from achelous_vswitch.negatives import Negatives
from achelous_vswitch.pushed import Pushed
from achelous_vswitch.reconcile import Reconciler
from achelous_vswitch.rsp_client import RspClient
from achelous_vswitch.settings import VswitchSettings

VNI = 9
OFFERED = Options(Capability.CHANGES | Capability.PUSH | Capability.GAPS)


def address(number: int) -> bytes:
    return ip_bytes(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")


def addresses(numbers: Iterable[int]) -> np.ndarray:
    """(n, 16)"""
    return np.frombuffer(b"".join(map(address, numbers)), np.uint8).reshape(-1, 16)


def entries(revision: int, routes: Mapping[int, int | None]) -> Routes:
    """A delta's: number -> VTEP, None withdraws."""
    table = np.zeros(len(routes), ROUTE)
    table["ip"] = addresses(routes)
    table["vtep"] = [vtep or 0 for vtep in routes.values()]
    table["op"] = [RouteOp.UPSERT if vtep else RouteOp.DELETE for vtep in routes.values()]
    table["revision"] = revision
    return table


class TableGateway:
    """A gateway's table, log and RSP server; what it has not been told of, it does not know."""

    def __init__(self, number: int, capacity: int = 4096) -> None:
        self.gateway = Gateway(UUID(int=number + 1), f"g{number}", number + 1, heard=True)
        self.capacity = capacity
        self.silent = False
        self.start()

    def start(self) -> None:
        """From nothing, as after a restart with an empty data plane."""
        stats = Stats()
        table, journal = RouteTable(self.capacity), RspJournal()
        self.keeper = Keeper(table, None, journal, stats, lambda _: None)
        self._reading: Vpc | None = None
        self._rows: list[Rows] = []
        self.server = RspServer(
            table, journal.stands, journal.changes, stats, mtu=1500, whole=lambda: True
        )

    def take(self, base: int, revision: int, table: Routes, vni: int = VNI) -> None:
        """Apply a delta."""
        asyncio.run(self.keeper.take(Delta(vni, base, revision, table)))

    def read_whole(self, revision: int, table: Routes, vni: int = VNI) -> None:
        """Take a snapshot, as after a gap."""
        self.begin_reading(vni)
        self.read_chunk(revision, table)
        self.end_reading(revision)

    def begin_reading(self, vni: int = VNI) -> None:
        """From here on deltas wait for the end of a snapshot."""
        self.keeper.ask(vni)
        self.keeper.wanted.get_nowait()
        self._reading = self.keeper.begin(vni)
        self._rows = [np.zeros(0, np.int64)]

    def read_chunk(self, revision: int, table: Routes) -> None:
        """Take a part of the snapshot, as it was at ``revision``."""
        assert self._reading is not None
        self._rows.append(asyncio.run(self.keeper.merge(self._reading, revision, table)))

    def end_reading(self, revision: int) -> None:
        """Its first chunk was of ``revision``."""
        assert self._reading is not None
        asyncio.run(self.keeper.finish(self._reading, revision, np.concatenate(self._rows)))
        self._reading = None

    @property
    def reading(self) -> bool:
        """Whether a snapshot was begun and has not ended."""
        return self._reading is not None

    @property
    def revision(self) -> int:
        vpc = self.keeper.vpcs.get(VNI)
        return vpc.revision if vpc else 0


class TableClient(RspClient):
    """Asks tables; counts what that would have put on the bus."""

    def __init__(self, gateways: list[TableGateway]) -> None:
        self.tables = gateways
        self.bytes = 0
        self.messages = 0
        self.asked: list[bytes] = []
        self._ids = itertools.count(1)
        self._turn = 0

    def groups_of(self, vnis: np.ndarray) -> np.ndarray:
        return np.zeros(len(vnis), np.uint8)

    def in_turn(self, group: int = 0) -> list[Gateway]:  # noqa: ARG002 - there is one
        self._turn += 1
        at = self._turn % len(self.tables)
        return [table.gateway for table in self.tables[at:] + self.tables[:at]]

    def agreed(self, gateway: Gateway) -> Options | None:  # noqa: ARG002 - the client's
        return OFFERED

    async def ask(self, entries: rsp.Entries, first: Gateway | None = None) -> rsp.Entries | None:
        turn = self.in_turn()
        for gateway in [first, *turn] if first else turn:
            request = rsp.encode(rsp.MessageType.REQUEST, 1, entries, OFFERED)
            reply = self._exchange_with(gateway, request)
            if reply is not None:
                self.asked += [key.tobytes() for key in entries["key"]]
                return rsp.decode(reply, rsp.MessageType.REPLY).entries
        return None

    async def watch(self, gateway: Gateway, entries: rsp.Entries) -> Changes | None:
        reply = self._exchange_with(gateway, rsp_changes.encode_watches(1, entries, OFFERED))
        return None if reply is None else rsp_changes.decode_changes(reply)

    def _exchange_with(self, gateway: Gateway, request: bytes) -> bytes | None:
        [table] = [table for table in self.tables if table.gateway is gateway]
        if table.silent:
            return None
        [reply] = table.server.answer([request])
        self.bytes += len(request) + len(reply)
        self.messages += 2
        return reply


@dataclass
class TableHost:
    """A vSwitch in memory whose gateways are tables."""

    gateways: list[TableGateway]
    slots: int = 64
    settings: VswitchSettings = field(
        default_factory=lambda: VswitchSettings(nats_url="nats://nowhere", host_id=UUID(int=1))
    )

    def __post_init__(self) -> None:
        self.dataplane: Dataplane = memory_dataplane(fc=self.slots)
        self.dataplane.config["vtep"] = 0xFFFF
        self.dataplane.vnis.update(np.uint32(VNI), np.uint32(1))
        self.cache = ForwardingCache(self.dataplane.fc, self.dataplane.fc_index, rest_s=0)
        self.client = TableClient(self.gateways)
        self.metrics = Metrics()
        self.negatives = Negatives(self.cache.views, self.settings.negative_s)
        common = (self.client, self.settings, self.metrics)
        self.learner = Learner(self.dataplane, self.cache, self.negatives, *common)
        self.pushed = Pushed(self.dataplane, self.cache, self.metrics)
        self.reconciler = Reconciler(self.cache, self.negatives, self.dataplane.config, *common)

    def learn(self, *numbers: int, vni: int = VNI) -> None:
        """Ask for these, as for what was relayed."""
        wanted = rsp.requests([vni] * len(numbers), addresses(numbers))
        asyncio.run(self.learner._learn(wanted))

    def push(self, gateway: TableGateway, number: int) -> None:
        """Have the gateway send a route unasked, if it has one."""
        routes = gateway.server.routes([VNI], addresses([number]))
        if len(routes):
            message = rsp.encode(rsp.MessageType.PUSH, 1, routes, OFFERED)
            asyncio.run(self.pushed.on_push(message))

    def tick(self) -> bool:
        return asyncio.run(self.reconciler._delta.tick(0, list(self.cache.views)))

    def held(self) -> dict[bytes, int]:
        """Address -> VTEP."""
        held = self.cache.entries[self.cache.used()]
        return {entry["ip"].tobytes(): int(entry["vtep"]) for entry in held}
