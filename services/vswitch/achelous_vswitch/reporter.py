"""Tells the controller what this host runs: at once when it changed, and every second."""

import asyncio
import logging
import time

from achelous_shared import subjects
from achelous_shared.bus import Bus, BusError
from achelous_shared.messages import HostApplied
from achelous_shared.routes import pack
from achelous_vswitch.applier import Applier
from achelous_vswitch.gateways import Gateways
from achelous_vswitch.preprogrammed import Preprogrammed
from achelous_vswitch.settings import VswitchSettings

log = logging.getLogger(__name__)


class Reporter:
    """Sends `HostApplied`; it is the host's heartbeat too."""

    def __init__(
        self,
        bus: Bus,
        applier: Applier,
        gateways: Gateways,
        preprogrammed: Preprogrammed,
        settings: VswitchSettings,
    ) -> None:
        self._bus = bus
        self._applier = applier
        self._gateways = gateways
        self._preprogrammed = preprogrammed
        self._settings = settings
        self._due = asyncio.Event()

    def now(self) -> None:
        """Report as soon as this task has its turn: changes in one turn make one report."""
        self._due.set()

    async def on_command(self, _: bytes) -> None:
        """A new leader asks everyone."""
        self.now()

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            self._due.clear()
            try:
                await self._bus.publish(
                    subjects.host_applied(self._settings.host_id), self._report()
                )
            except BusError as error:
                log.debug("report: %s", error)
            try:
                async with asyncio.timeout(self._settings.report_s):
                    await self._due.wait()
            except TimeoutError:
                continue

    def _report(self) -> HostApplied:
        desired = self._applier.desired
        vnis = desired.preprogrammed if desired else frozenset()
        return HostApplied(
            host_id=self._settings.host_id,
            revision=self._applier.revision,
            fleet_revision=self._gateways.revision,
            waiting=self._applier.waiting,
            failed=self._applier.failed,
            at=time.time(),
            preprogrammed=pack(self._preprogrammed.revisions(vnis)),
            unheld=tuple(vnis & self._preprogrammed.table.lacking),
        )
