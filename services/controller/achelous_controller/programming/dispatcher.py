"""Carries the outbox to the bus: woken by NOTIFY, polling only as repair."""

import asyncio
import logging
from typing import Final, Protocol

from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.programming.connections import session
from achelous_controller.store.outbox import CHANNEL
from achelous_shared.bus import Bus, BusError

log = logging.getLogger(__name__)

_POLL_S: Final = 1.0
_BACKOFF_S: Final = (0.05, 0.1, 0.2, 0.5)


class Publisher(Protocol):
    """Takes batches from the outbox to the bus."""

    async def step(self) -> bool:
        """One batch; whether there was anything to do. `BusError`: try again later."""


class Dispatcher:
    """Runs each publisher in a loop of its own, so that none waits for another."""

    def __init__(
        self, engine: AsyncEngine, bus: Bus, publishers: dict[Publisher, asyncio.Event]
    ) -> None:
        self._engine = engine
        self._bus = bus
        self._publishers = publishers  # with the event that wakes each

    async def run(self) -> None:
        """Dispatch until cancelled. Fails when the database does."""
        async with session(self._engine, "achelous-dispatcher", {}) as connection:
            await connection.add_listener(CHANNEL, self._notified)
            async with asyncio.TaskGroup() as group:
                for publisher, wake in self._publishers.items():
                    group.create_task(self._loop(publisher, wake))

    def _notified(self, *_: object) -> None:
        for wake in self._publishers.values():
            wake.set()

    async def _loop(self, publisher: Publisher, wake: asyncio.Event) -> None:
        failures = 0
        while True:
            wake.clear()
            try:
                self._check_bus()
                found = await publisher.step()
                failures = 0
            except BusError as error:
                delay = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
                failures += 1
                log.warning("dispatch: %s; again in %g s", error, delay)
                await asyncio.sleep(delay)
                continue
            if not found:
                await _woken(wake)

    def _check_bus(self) -> None:
        if not self._bus.connected:  # every attempt would take its whole timeout
            raise BusError("not connected")


async def _woken(wake: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_POLL_S):
            await wake.wait()
    except TimeoutError:
        pass  # look without being told
