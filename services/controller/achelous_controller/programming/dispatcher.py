"""Carries the outbox to the bus: woken by NOTIFY, polling only as repair.

A lone change is one round trip to the database until it is on its way, and one more when the
streams have it.
"""

import asyncio
import logging
import time
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.programming import outbox
from achelous_controller.programming.connections import session
from achelous_controller.programming.document_publisher import Batch, DocumentPublisher
from achelous_controller.programming.route_publisher import RoutePublisher
from achelous_controller.store.outbox import CHANNEL
from achelous_shared.bus import BusError
from achelous_shared.stream_writer import StreamWriter

log = logging.getLogger(__name__)

_POLL_S: Final = 1.0
_BACKOFF_S: Final = (0.05, 0.1, 0.2, 0.5)
_REST_S: Final = 0.025
"""At most, and as long as a step took: others have the database and this process meanwhile, and
more changes of a VPC or a host come together."""


class Dispatcher:
    """Looks at the outbox, publishes what it finds and removes it, again and again.

    ``connection``: its own, for `outbox`.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        connection: Any,
        writer: StreamWriter,
        routes: RoutePublisher,
        documents: DocumentPublisher,
    ) -> None:
        self._engine = engine
        self._connection = connection
        self._writer = writer
        self._routes = routes
        self._documents = documents
        self._wake = documents.wanted

    async def run(self) -> None:
        """Dispatch until cancelled. Fails when the database does."""
        async with session(self._engine, "achelous-dispatcher", {}) as listening:
            await listening.add_listener(CHANNEL, lambda *_: self._wake.set())
            await outbox.begin(self._connection)
            await self._loop()

    async def _loop(self) -> None:
        failures = 0
        while True:
            self._wake.clear()
            try:
                self._check_bus()
                left = await self.step()
                failures = 0
            except BusError as error:
                delay = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
                failures += 1
                log.warning("dispatch: %s; again in %g s", error, delay)
                await asyncio.sleep(delay)
                continue
            if not left:
                await _woken(self._wake)

    def _check_bus(self) -> None:
        if not self._writer.connected:
            raise BusError("not connected")

    async def step(self) -> bool:
        """Publish what there is; whether there was more than goes at once. What is committed from
        now on is notified of.

        What was published is not published again even when the rest was not; `BusError` then.
        """
        began = time.monotonic()
        rows = await outbox.read(self._connection)
        # in this order, and by one write unless whole documents or rules are to be read. While
        # thousands of ports are read, nobody here would hear that the stream took a delta, and the
        # VPC's next one would wait
        async with asyncio.TaskGroup() as group:
            routes = group.create_task(self._routes.publish(rows.routes))
            if rows.ports is None:
                await routes
            documents = group.create_task(self._publish_documents(rows))
        batch, covered, untaken = documents.result()
        published = routes.result() + covered
        await outbox.end(self._connection, published)
        untaken += len(rows.routes) - len(routes.result())
        if untaken:
            raise BusError(f"{untaken} documents and route deltas were not taken")
        if published or batch:
            await asyncio.sleep(min(time.monotonic() - began, _REST_S))
        return not (rows.all and batch.all)

    async def _publish_documents(self, rows: outbox.Rows) -> tuple[Batch, list[int], int]:
        batch = await self._documents.read(self._connection, rows)
        return batch, *await self._documents.publish(batch)


async def _woken(wake: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_POLL_S):
            await wake.wait()
    except TimeoutError:
        pass  # look without being told
