"""Listens to the reports of gateways and hosts. Every controller does, so that each can tell the
fleet's status and any can lead at once. Only the leader has to know at once what they say: others
keep each host's last report unread.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from achelous_controller.programming.fleet import Fleet, Host
from achelous_controller.programming.metrics import Metrics
from achelous_controller.programming.reports import Reports
from achelous_controller.store.failures import FAILURES
from achelous_shared import subjects
from achelous_shared.bus import Bus
from achelous_shared.messages import BadMessage, GatewayApplied, HostApplied, Message, decode
from achelous_shared.names import GATEWAY_SHARDS

log = logging.getLogger(__name__)

_REFRESH_S: Final = 2.0


class _OfHost(Message, frozen=True, kw_only=True):
    """`HostApplied`, as far as it says whose it is."""

    host_id: UUID


class Observer:
    """The registered fleet and its reports."""

    def __init__(self, engine: AsyncEngine, bus: Bus, metrics: Metrics) -> None:
        self._engine = engine
        self._bus = bus
        self._metrics = metrics
        self._reports = Reports(time.time())
        self._unread: dict[UUID, tuple[bytes, float]] = {}
        """The last report of each host, and when it came."""
        self._attentive = False
        self.fleet = Fleet()
        self.moved = asyncio.Event()
        """Set when a report that was read said something new."""
        self._fleet_at = float("-inf")  # monotonic

    @property
    def reports(self) -> Reports:
        """What all have reported so far."""
        self._read()
        return self._reports

    @contextmanager
    def attentive(self) -> Iterator[None]:
        """Read reports as they come: who leads waits for them."""
        self._read()
        self._attentive = True
        try:
            yield
        finally:
            self._attentive = False

    async def run(self) -> None:
        """Listen until cancelled."""
        gateways, hosts = subjects.ALL_GATEWAYS_APPLIED, subjects.ALL_HOSTS_APPLIED
        async with asyncio.TaskGroup() as group:
            group.create_task(self._bus.listen_batches(gateways, self._on_gateways))
            group.create_task(self._bus.listen_batches(hosts, self._on_hosts))
            group.create_task(self._keep_fleet())

    async def refresh(self) -> None:
        """Read who is registered. Fails when the database does."""
        async with self._engine.connect() as connection:
            self.fleet = await _read_fleet(connection)
        for host in [who for who in self._unread if who not in self.fleet.hosts]:
            del self._unread[host]
        self._reports.keep(self.fleet.gateways, self.fleet.hosts)
        self._fleet_at = time.monotonic()

    async def _keep_fleet(self) -> None:
        while True:
            try:
                if time.monotonic() - self._fleet_at > _REFRESH_S / 2:  # a leader reads it itself
                    await self.refresh()
            except FAILURES as error:
                log.warning("the fleet's registry: %r", error)
            await asyncio.sleep(_REFRESH_S)

    def _read(self) -> None:
        unread, self._unread = self._unread, {}
        for data, at in unread.values():
            self._take(subjects.ALL_HOSTS_APPLIED, self._host, data, at)

    def _on_gateways(self, reports: Sequence[bytes]) -> None:
        at = time.time()
        for data in reports:
            self._take(subjects.ALL_GATEWAYS_APPLIED, self._gateway, data, at)

    def _on_hosts(self, reports: Sequence[bytes]) -> None:
        at = time.time()
        read = self._host if self._attentive else self._note_host
        for data in reports:
            self._take(subjects.ALL_HOSTS_APPLIED, read, data, at)

    def _take(
        self, subject: str, take: Callable[[bytes, float], bool], data: bytes, at: float
    ) -> None:
        try:
            if take(data, at):
                self.moved.set()
        except BadMessage as error:
            self._metrics.bad_messages.labels(subject).inc()
            log.warning("%s: %s", subject, error)

    def _gateway(self, data: bytes, at: float) -> bool:
        return self._reports.gateway(decode(data, GatewayApplied), at)

    def _host(self, data: bytes, at: float) -> bool:
        return self._reports.host(decode(data, HostApplied), at)

    def _note_host(self, data: bytes, at: float) -> bool:
        self._unread[decode(data, _OfHost).host_id] = data, at
        self._reports.heard(at)
        return False


async def _read_fleet(connection: AsyncConnection) -> Fleet:
    revision = await connection.execute(text("SELECT revision FROM fleet"))
    gateways = (await connection.execute(text("SELECT id, name, shards FROM gateways"))).all()
    hosts = await connection.execute(text("SELECT id, name, revision FROM hosts"))
    return Fleet(
        revision=revision.scalar_one(),
        gateways={row.id: row.name for row in gateways},
        hosts={id_: Host(name, at) for id_, name, at in hosts.all()},
        shards={
            row.id: frozenset(row.shards) for row in gateways if len(row.shards) < GATEWAY_SHARDS
        },
    )
