"""Programming as one part of a controller: what every controller runs, and what its leader runs."""

import asyncio
import time
from typing import Any

from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.programming import outbox, records
from achelous_controller.programming.connections import WORK_TIMEOUT_S, session
from achelous_controller.programming.dispatcher import Dispatcher
from achelous_controller.programming.document_publisher import DocumentPublisher
from achelous_controller.programming.fleet import FleetStatus, fleet_status
from achelous_controller.programming.leader import Leadership
from achelous_controller.programming.metrics import Metrics
from achelous_controller.programming.observer import Observer
from achelous_controller.programming.progress import Progress
from achelous_controller.programming.repair import Repair
from achelous_controller.programming.retired import RetiredIdentities
from achelous_controller.programming.route_publisher import RoutePublisher
from achelous_controller.programming.snapshots import Snapshots
from achelous_controller.programming.streams import Streams
from achelous_controller.settings import ControllerSettings
from achelous_shared.bus import Bus
from achelous_shared.stream_writer import StreamWriter


class Programming:
    """Brings the desired state to gateways and hosts, and instances to ACTIVE.

    Any number of controllers may run it on one database and bus; one of those that may leads.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        settings: ControllerSettings,
        bus: Bus,
        registry: CollectorRegistry,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._bus = bus
        self._metrics = Metrics(registry)
        self._observer = Observer(engine, bus, self._metrics)
        self._snapshots = Snapshots(engine, bus, self._metrics)
        self._leadership = Leadership(engine, self._lead, may=settings.lead)
        self._metrics.leader.set_function(lambda: self._leadership.leading)

    async def run(self) -> None:
        """Run until cancelled. Outages of database and bus are waited out."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._observer.run())
            group.create_task(self._snapshots.run())
            group.create_task(self._leadership.run())

    def status(self) -> dict[str, str | None]:
        """Each check with None when all is well, else with what is wrong."""
        return {
            "leader": self._leadership.problem(),
            "bus": None if self._bus.connected else "not connected to the bus",
        }

    def fleet_status(self) -> FleetStatus:
        """How every registered gateway and host is doing, as this controller hears it."""
        return fleet_status(self._observer.fleet, self._observer.reports, time.time())

    async def _lead(self) -> None:
        """One term as the leader: nothing is kept from a term before."""
        async with (
            session(self._engine, "achelous-progress", records.SESSION, WORK_TIMEOUT_S) as first,
            session(self._engine, "achelous-outbox", outbox.SESSION, WORK_TIMEOUT_S) as second,
            self._bus.stream_writer() as writer,
        ):
            progress = Progress(
                first, self._observer, self._metrics, self._settings.building_timeout_s
            )
            with self._observer.attentive():
                await self._program(progress, second, writer)

    async def _program(self, progress: Progress, connection: Any, writer: StreamWriter) -> None:
        documents = DocumentPublisher(self._engine, self._bus, writer, self._metrics)
        routes = RoutePublisher(writer, self._metrics, progress)
        streams = Streams(self._bus, documents.restore)
        dispatcher = Dispatcher(self._engine, connection, writer, routes, documents)
        repair = Repair(self._bus, self._observer, progress, documents)
        retired = RetiredIdentities(self._engine, self._observer, self._settings.identity_rest_s)
        async with asyncio.TaskGroup() as group:
            group.create_task(streams.run())
            group.create_task(retired.run())
            group.create_task(progress.run())
            group.create_task(repair.run())
            await streams.ready()
            group.create_task(dispatcher.run())
