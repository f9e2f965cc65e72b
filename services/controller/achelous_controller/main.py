"""The controller: database, API, bus and programming, wired together."""

import asyncio
import gc
import logging
import os

from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.api.context import Services
from achelous_controller.api.whole_replies import WholeReplies
from achelous_controller.app import create_app
from achelous_controller.programming.service import Programming
from achelous_controller.settings import ControllerSettings
from achelous_controller.store import idempotency
from achelous_controller.store.bootstrap import first_token
from achelous_controller.store.database import Database, create_engine
from achelous_controller.store.failures import FAILURES
from achelous_controller.store.migrate import migrate
from achelous_shared.bus import Bus
from achelous_shared.bus_roles import Role
from achelous_shared.telemetry import serve_http

log = logging.getLogger(__name__)

_PING_S = 1.0
_FORGET_S = 600.0


async def main(settings: ControllerSettings) -> None:
    """Run until cancelled. The API answers as soon as the database is there, bus or no bus."""
    _collect_rarely()
    engine = create_engine(settings.dsn)
    registry = CollectorRegistry()
    try:
        await migrate(engine)
        await first_token(engine, settings.operator_token_file)
        services = Services(Database(engine))
        app = create_app(services, registry)
        address_file = settings.run_dir / f"controller-{os.getpid()}.http"
        async with asyncio.TaskGroup() as group:
            group.create_task(_watch_database(services))
            group.create_task(_forget_old_keys(services.database))
            group.create_task(serve_http(app, settings.http, address_file, WholeReplies))
            group.create_task(_use_bus(engine, settings, services, registry))
    finally:
        await engine.dispose()


def _collect_rarely() -> None:
    """A batch makes a hundred thousand objects and no cycles; collecting took half its time."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


async def _use_bus(
    engine: AsyncEngine,
    settings: ControllerSettings,
    services: Services,
    registry: CollectorRegistry,
) -> None:
    name = f"controller-{os.getpid()}"
    async with Bus.connect(settings.nats_url, role=Role.CONTROLLER, name=name) as bus:
        programming = Programming(engine, settings, bus, registry)
        services.bus, services.fleet = bus, programming
        await programming.run()


async def _watch_database(services: Services) -> None:
    """Keep the answer to whether the database is there, which /readyz gives at once."""
    while True:
        services.database_problem = await services.database.ping()
        await asyncio.sleep(_PING_S)


async def _forget_old_keys(database: Database) -> None:
    while True:
        try:
            async with database.write() as connection:
                await idempotency.forget_old(connection)
        except FAILURES as error:
            log.info("old idempotency keys are left for now: %s", error)
        await asyncio.sleep(_FORGET_S)
