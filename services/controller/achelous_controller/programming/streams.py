"""The streams of the bus: made by the leader, and made again if the bus lost them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

from nats.js.api import DiscardPolicy, StorageType, StreamConfig

from achelous_shared import subjects
from achelous_shared.bus import Bus, BusError

log = logging.getLogger(__name__)

ROUTES: Final = StreamConfig(
    name=subjects.ROUTES_STREAM,
    subjects=[subjects.ALL_ROUTES],
    storage=StorageType.FILE,
    discard=DiscardPolicy.OLD,
    max_age=600,
    max_bytes=256 * 1024 * 1024,
    duplicate_window=120,
)
"""What a gateway missed for at most ten minutes; beyond that it asks for a snapshot."""

HOSTS: Final = StreamConfig(
    name=subjects.HOSTS_STREAM,
    subjects=[subjects.ALL_HOSTS, subjects.ALL_HOST_CHANGES, subjects.FLEET],
    storage=StorageType.FILE,
    discard=DiscardPolicy.OLD,
    max_msgs_per_subject=1,
)
"""The last document of each host and what changed since, and the fleet's."""

_CHECK_S: Final = 1.0
_RETRY_S: Final = 0.1

Restore = Callable[[frozenset[str]], Awaitable[None]]
"""Publishes again what `HOSTS` should hold; takes the subjects that it has."""


class Streams:
    """Keeps the streams there, and tells when `HOSTS` may lack documents."""

    def __init__(self, bus: Bus, restore: Restore) -> None:
        self._bus = bus
        self._restore = restore
        self._ready = asyncio.Event()
        self._complete_since: datetime | None = None

    async def ready(self) -> None:
        """Wait until the streams have been seen or made."""
        await self._ready.wait()

    async def run(self) -> None:
        """Look each second, until cancelled."""
        while True:
            try:
                await self._ensure()
                delay = _CHECK_S
            except BusError as error:
                log.warning("streams: %s", error)
                delay = _RETRY_S
            await asyncio.sleep(delay)

    async def _ensure(self) -> None:
        await self._bus.ensure_stream(ROUTES)
        created = await self._bus.ensure_stream(HOSTS)
        self._ready.set()
        if created != self._complete_since:  # a new leader, or a new stream
            await self._restore(await self._bus.stream_subjects(subjects.HOSTS_STREAM))
            self._complete_since = created
