"""Listens to the reports of gateways and hosts. Every controller does, so that each can tell the
fleet's status and any can lead at once.
"""

import asyncio
import logging
import time
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.programming import queries
from achelous_controller.programming.connections import DATABASE_ERRORS
from achelous_controller.programming.fleet import Fleet
from achelous_controller.programming.metrics import Metrics
from achelous_controller.programming.reports import Reports
from achelous_shared import subjects
from achelous_shared.bus import Bus
from achelous_shared.messages import BadMessage, GatewayApplied, HostApplied, decode

log = logging.getLogger(__name__)

_REFRESH_S: Final = 2.0


class Observer:
    """The registered fleet and its reports."""

    def __init__(self, engine: AsyncEngine, bus: Bus, metrics: Metrics) -> None:
        self._engine = engine
        self._bus = bus
        self._metrics = metrics
        self.fleet = Fleet()
        self.reports = Reports()
        self.moved = asyncio.Event()
        """Set when a report said something new."""

    async def run(self) -> None:
        """Listen until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._bus.listen(subjects.ALL_GATEWAYS_APPLIED, self._gateway))
            group.create_task(self._bus.listen(subjects.ALL_HOSTS_APPLIED, self._host))
            group.create_task(self._keep_fleet())

    async def refresh(self) -> None:
        """Read who is registered. Fails when the database does."""
        async with self._engine.connect() as connection:
            self.fleet = await queries.load_fleet(connection)
        self.reports.keep(self.fleet.gateways, self.fleet.hosts)

    async def _keep_fleet(self) -> None:
        while True:
            try:
                await self.refresh()
            except DATABASE_ERRORS as error:
                log.warning("the fleet's registry: %r", error)
            await asyncio.sleep(_REFRESH_S)

    async def _gateway(self, data: bytes) -> None:
        try:
            news = self.reports.gateway(decode(data, GatewayApplied), time.time())
        except BadMessage as error:
            self._bad(subjects.ALL_GATEWAYS_APPLIED, error)
        else:
            self._tell(news)

    async def _host(self, data: bytes) -> None:
        try:
            news = self.reports.host(decode(data, HostApplied), time.time())
        except BadMessage as error:
            self._bad(subjects.ALL_HOSTS_APPLIED, error)
        else:
            self._tell(news)

    def _bad(self, subject: str, error: BadMessage) -> None:
        self._metrics.bad_messages.labels(subject).inc()
        log.warning("%s: %s", subject, error)

    def _tell(self, news: bool) -> None:
        if news:
            self.moved.set()
