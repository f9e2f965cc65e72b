"""Brings the host to its document, again and again: when one arrives, and when a device does."""

import asyncio
import logging
import time
from collections.abc import Callable
from uuid import UUID

from achelous_shared.messages import HostChanges, HostDocument
from achelous_vswitch import underlay
from achelous_vswitch.dataplane import Dataplane
from achelous_vswitch.devices import HostDevices, Underlay
from achelous_vswitch.fc import ForwardingCache
from achelous_vswitch.metrics import Metrics
from achelous_vswitch.plan import Desired, DesiredPort, Link, plan
from achelous_vswitch.ports import PortTable
from achelous_vswitch.resolver import Resolver
from achelous_vswitch.rules import RuleSets
from achelous_vswitch.settings import VswitchSettings

log = logging.getLogger(__name__)

_AGAIN_S = 1.0
"""So often what failed is tried again, and rule sets that nobody holds are swept."""
_YIELD_EVERY = 32
"""Ports, after which others of this process get their turn."""
_REPORT_EVERY = 16
"""Ports, after which the controller hears of them."""


class Applier:
    """Owns the ports. Nothing of them is touched before the first document has come."""

    def __init__(
        self,
        dataplane: Dataplane,
        devices: HostDevices,
        cache: ForwardingCache,
        settings: VswitchSettings,
        metrics: Metrics,
        *,
        on_applied: Callable[[], None],
        on_underlay: Callable[[], None],
    ) -> None:
        self._dataplane = dataplane
        self._devices = devices
        self._cache = cache
        self._settings = settings
        self._metrics = metrics
        self._on_applied = on_applied
        self._on_underlay = on_underlay
        self._wake = asyncio.Event()
        self._rules = RuleSets(dataplane.acl_sets, dataplane.acl_words)
        self._resolver = Resolver(max_ports=settings.max_ports)
        self._offered: Desired | None = None
        self._attached: dict[str, int] = {}
        self._seen: set[str] = set()
        """Devices that were there when it was last looked for those that are gone."""
        self.ports: PortTable | None = None
        """The ports that run, once the devices are known."""
        self.underlay: Underlay | None = None
        """The underlay in use, once it is bound."""
        self.desired: Desired | None = None
        """The document that is run."""
        self.waiting: tuple[UUID, ...] = ()
        self.failed: dict[UUID, str] = {}

    @property
    def revision(self) -> int:
        """Of the document that is run; 0: none yet."""
        return self.desired.revision if self.desired else 0

    def offer(self, message: HostDocument | HostChanges) -> Desired | None:
        """Run what this says from now on; None if a newer one was offered before, or these are
        changes to a document that did not come."""
        desired = self._resolver.take(message)
        if desired is not None:
            self._offered = desired
            self.wake()
        return desired

    def wake(self) -> None:
        """Something changed: a document, a device."""
        self._wake.set()

    async def run(self) -> None:
        """Apply until cancelled."""
        await self._devices.known.wait()
        now = time.monotonic()
        self._rules.adopt(now)
        self.ports = PortTable(self._dataplane, self._rules, self._devices.links.values())
        log.info("found %d ports and %d routes", len(self.ports.bound), len(self._cache))
        while True:
            self._wake.clear()
            if self._devices.known.is_set():  # else the picture is being taken anew
                await self._bind_underlay()
                if self._offered is not None:
                    await self._apply(self._offered, self.ports)
            self._rules.sweep(time.monotonic())
            try:
                async with asyncio.timeout(_AGAIN_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _bind_underlay(self) -> None:
        seen = self._devices.underlay
        if seen is None or seen == self.underlay:
            return
        try:
            await underlay.bind(self._dataplane, seen, self._settings)
        except OSError as error:
            log.warning("underlay device %s: %s", self._settings.underlay_device, error)
        else:
            self.underlay = seen
            self._on_underlay()

    async def _apply(self, desired: Desired, ports: PortTable) -> None:
        started = time.monotonic()
        first = self.desired is None
        links = self._devices.links
        changes = plan(desired, ports.bound, links)
        failed = dict(desired.failed)
        for device in changes.unbind:
            ports.unbind(device, time.monotonic())
        for want in changes.update:
            try:
                ports.update(want, time.monotonic())
            except OSError as error:
                failed[want.vnic_id] = str(error)
        for number, (want, link) in enumerate(changes.bind):
            self._bind(ports, want, link, failed)
            if number % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
        if first:
            ports.repair()
        await self._attach(desired, ports, changes.waiting, failed, started)
        await self._detach_absent(links)
        self._settle(desired, changes.waiting, failed, started)

    def _bind(
        self, ports: PortTable, want: DesiredPort, link: Link, failed: dict[UUID, str]
    ) -> None:
        try:
            ports.bind(want, link, time.monotonic())
        except OSError as error:
            failed[want.vnic_id] = str(error)
        else:
            # It may have been learned as another host's: here it is nearer.
            for ip in want.config.addresses:
                self._cache.forget(want.config.vni, ip)

    async def _attach(
        self,
        desired: Desired,
        ports: PortTable,
        waiting: tuple[UUID, ...],
        failed: dict[UUID, str],
        started: float,
    ) -> None:
        """Hook the devices of all ports, those too that an agent before this one hooked.

        The kernel takes some 15 ms for each new one: of many, those that are done are reported.
        """
        todo = [
            device
            for device, port in ports.bound.items()
            if self._attached.get(device) != port.link.ifindex
        ]
        if not todo:
            return
        new = [desired.ports[name].vnic_id for name in set(todo) - self._dataplane.hooks.attached()]
        for number, device in enumerate(todo, start=1):
            vnic_id, ifindex = desired.ports[device].vnic_id, ports.bound[device].link.ifindex
            try:
                await self._dataplane.hooks.attach_guest(device, ifindex)
            except OSError as error:
                failed[vnic_id] = str(error)
            else:
                self._attached[device] = ifindex
            if vnic_id in new:
                new.remove(vnic_id)
            if new and number % _REPORT_EVERY == 0:
                self._settle(desired, (*waiting, *new), dict(failed), started)

    async def _detach_absent(self, links: dict[str, Link]) -> None:
        """Forget devices that are gone. One that is there stays hooked: its guest, which this host
        runs no more, then reaches nothing, and not the host's own stack either."""
        if links.keys() == self._seen:
            return
        for device in self._dataplane.hooks.attached() - links.keys():
            self._attached.pop(device, None)
            await self._dataplane.hooks.detach(device)
        self._seen = set(links)

    def _settle(
        self,
        desired: Desired,
        waiting: tuple[UUID, ...],
        failed: dict[UUID, str],
        started: float,
    ) -> None:
        for vnic_id, reason in failed.items():
            if self.failed.get(vnic_id) != reason:
                log.warning("vNIC %s: %s", vnic_id, reason)
        state = (desired, waiting, failed)
        if state != (self.desired, self.waiting, self.failed):
            self.desired, self.waiting, self.failed = state
            log.info(
                "document %d: %d vNICs, %d wait for their device, %d failed",
                desired.revision, len(desired.ports), len(waiting), len(failed),
            )  # fmt: skip
            self._metrics.apply_s.observe(time.monotonic() - started)
            self._on_applied()
