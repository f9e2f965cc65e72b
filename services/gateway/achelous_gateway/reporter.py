"""Reports the revisions that this gateway serves: what moved at once, and all of them now and then.

The reports are also its heartbeat.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterable
from typing import Final
from uuid import UUID

from achelous_shared import subjects
from achelous_shared.bus import Bus, BusError
from achelous_shared.messages import GatewayApplied
from achelous_shared.routes import Routes, pack

log = logging.getLogger(__name__)

_COALESCE_S: Final = 0.005
_HEARTBEAT_S: Final = 0.5
_LATELY_S: Final = 5.0
"""What moved is repeated in every heartbeat for so long, because a report may get lost."""
_FULL_BEATS: Final = 20
_AT_ONCE: Final = 60_000
"""Revisions in one message: 720 kB."""


class Reporter:
    """Tells the controller. `moved` is called for each VPC whose revision changed."""

    def __init__(
        self,
        gateway_id: UUID,
        bus: Bus,
        revisions: Callable[[Iterable[int] | None], Routes],
        serving: Callable[[], bool],
    ) -> None:
        self._gateway_id = gateway_id
        self._bus = bus
        self._revisions = revisions
        self._serving = serving
        self._moved_at: dict[int, float] = {}
        self._fresh: set[int] = set()
        self._all = True
        self._wake = asyncio.Event()
        self._reported_at = float("-inf")

    def moved(self, vni: int) -> None:
        """Report this VPC's revision: at once, or 5 ms after the report before."""
        self._moved_at[vni] = time.monotonic()
        self._fresh.add(vni)
        self._wake.set()

    async def on_command(self, _: bytes) -> None:
        """Report all now."""
        self.report_all()

    def report_all(self) -> None:
        """Report all revisions, as soon."""
        self._all = True
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._report_moves())
            group.create_task(self._beat())

    async def _report_moves(self) -> None:
        """Each as soon as it is there, and what moves with it if much does."""
        while True:
            await self._wake.wait()
            early = self._reported_at + _COALESCE_S - time.monotonic()
            if early > 0:
                await asyncio.sleep(early)
            self._wake.clear()
            if self._all:
                await self._report_all()
            elif self._fresh:  # no heartbeat has told of it meanwhile
                await self._report(self._fresh)

    async def _beat(self) -> None:
        for beat in itertools.count():
            if beat % _FULL_BEATS == 0:
                self.report_all()
            else:
                await self._report(self._lately(time.monotonic()))
            await asyncio.sleep(_HEARTBEAT_S)

    def _lately(self, now: float) -> set[int]:
        self._moved_at = {vni: at for vni, at in self._moved_at.items() if now - at < _LATELY_S}
        return set(self._moved_at)

    async def _report_all(self) -> None:
        revisions = self._revisions(None)
        self._all, self._fresh = False, set()
        # Only one whole message can say that what it lacks is not served.
        full = len(revisions) <= _AT_ONCE
        for at in range(0, max(1, len(revisions)), _AT_ONCE):
            await self._send(revisions[at : at + _AT_ONCE], full=full)

    async def _report(self, vnis: set[int]) -> None:
        revisions = self._revisions(vnis)
        self._reported_at = time.monotonic()
        self._fresh = set()
        await self._send(revisions, full=False)

    async def _send(self, revisions: Routes, *, full: bool) -> None:
        report = GatewayApplied(
            gateway_id=self._gateway_id,
            full=full,
            serving=self._serving(),
            revisions=pack(revisions),
            at=time.time(),
        )
        try:
            await self._bus.publish(subjects.gateway_applied(self._gateway_id), report)
        except BusError as error:
            log.debug("a report is lost: %s", error)  # the next heartbeat repeats it
