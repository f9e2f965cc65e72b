"""Listens to the reports of gateways and hosts. Every controller does, so that each can tell the
fleet's status and any can lead at once.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from achelous_controller.programming.connections import DATABASE_ERRORS
from achelous_controller.programming.fleet import Fleet, Host
from achelous_controller.programming.metrics import Metrics
from achelous_controller.programming.reports import Reports
from achelous_shared import subjects
from achelous_shared.bus import Bus
from achelous_shared.messages import BadMessage, GatewayApplied, HostApplied, M, decode
from achelous_shared.names import GATEWAY_SHARDS

log = logging.getLogger(__name__)

_REFRESH_S: Final = 2.0


class Observer:
    """The registered fleet and its reports."""

    def __init__(self, engine: AsyncEngine, bus: Bus, metrics: Metrics) -> None:
        self._engine = engine
        self._bus = bus
        self._metrics = metrics
        self.fleet = Fleet()
        self.reports = Reports(time.time())
        self.moved = asyncio.Event()
        """Set when a report said something new."""
        self._read_at = float("-inf")  # monotonic

    async def run(self) -> None:
        """Listen until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(
                self._listen(subjects.ALL_GATEWAYS_APPLIED, GatewayApplied, self.reports.gateway)
            )
            group.create_task(
                self._listen(subjects.ALL_HOSTS_APPLIED, HostApplied, self.reports.host)
            )
            group.create_task(self._keep_fleet())

    async def refresh(self) -> None:
        """Read who is registered. Fails when the database does."""
        async with self._engine.connect() as connection:
            self.fleet = await _read_fleet(connection)
        self.reports.keep(self.fleet.gateways, self.fleet.hosts)
        self._read_at = time.monotonic()

    async def _keep_fleet(self) -> None:
        while True:
            try:
                if time.monotonic() - self._read_at > _REFRESH_S / 2:  # a leader reads it itself
                    await self.refresh()
            except DATABASE_ERRORS as error:
                log.warning("the fleet's registry: %r", error)
            await asyncio.sleep(_REFRESH_S)

    async def _listen(self, subject: str, kind: type[M], take: Callable[[M, float], bool]) -> None:
        def on_reports(reports: Sequence[bytes]) -> None:
            at = time.time()
            for data in reports:
                if self._take(subject, data, kind, take, at):
                    self.moved.set()

        await self._bus.listen_batches(subject, on_reports)

    def _take(
        self, subject: str, data: bytes, kind: type[M], take: Callable[[M, float], bool], at: float
    ) -> bool:
        try:
            return take(decode(data, kind), at)
        except BadMessage as error:
            self._metrics.bad_messages.labels(subject).inc()
            log.warning("%s: %s", subject, error)
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
