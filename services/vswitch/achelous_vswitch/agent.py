"""The agent of one host: its tasks, and what it does with what it hears on the bus."""

import asyncio
import logging
from collections.abc import Callable

from achelous_shared import subjects
from achelous_shared.bpf import NetNs
from achelous_shared.bus import Bus
from achelous_shared.messages import (
    BadMessage,
    FleetDocument,
    UnknownVersion,
    decode,
    decode_host,
)
from achelous_shared.routes import MalformedTable
from achelous_shared.telemetry import Check, health_app, serve_http
from achelous_vswitch.advertiser import Advertiser
from achelous_vswitch.agent_state import AgentState
from achelous_vswitch.applier import Applier
from achelous_vswitch.dataplane import Dataplane
from achelous_vswitch.devices import HostDevices
from achelous_vswitch.drops import DropWatch
from achelous_vswitch.fc import ForwardingCache
from achelous_vswitch.flows import FlowMeter
from achelous_vswitch.gateways import Gateways
from achelous_vswitch.gauges import Gauges
from achelous_vswitch.learner import Learner
from achelous_vswitch.metrics import Metrics
from achelous_vswitch.negatives import Negatives
from achelous_vswitch.plan import Desired
from achelous_vswitch.preprogrammed import Preprogrammed
from achelous_vswitch.probe import Prober
from achelous_vswitch.pushed import Pushed
from achelous_vswitch.reconcile import Reconciler
from achelous_vswitch.reporter import Reporter
from achelous_vswitch.rsp_client import RspClient, offered
from achelous_vswitch.sessions import SessionCollector
from achelous_vswitch.settings import VswitchSettings
from achelous_vswitch.show import Shower
from achelous_vswitch.tracer import TraceDesk

log = logging.getLogger(__name__)


class Agent:
    """Everything that one host's agent does, over a packet path that is open."""

    def __init__(
        self,
        settings: VswitchSettings,
        dataplane: Dataplane,
        devices: HostDevices,
        netns: NetNs,
        bus: Bus,
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._metrics = metrics = Metrics()
        self._cache = ForwardingCache(dataplane.fc[: settings.max_fc + 1], dataplane.fc_index)
        self._gateways = Gateways(dataplane.gateways, dataplane.vteps)
        self._fleet: FleetDocument | None = None
        self._devices = devices
        self._applier = Applier(
            dataplane, self._devices, self._cache, settings, metrics,
            on_applied=lambda: self._reporter.now(), on_underlay=self._on_underlay,
        )  # fmt: skip
        self._preprogrammed = Preprogrammed(
            bus, dataplane, self._cache, settings, lambda: self._reporter.now()
        )
        self._reporter = Reporter(bus, self._applier, self._gateways, self._preprogrammed, settings)
        client = RspClient(
            bus, self._gateways, settings.rsp_timeout_s, metrics,
            lambda: offered(dataplane.config[0]),
        )  # fmt: skip
        self._pushed = Pushed(dataplane, self._cache, metrics, self._ahead)
        negatives = Negatives(self._cache.views, settings.negative_s)
        self._learner = Learner(
            dataplane, self._cache, negatives, client, settings, metrics, self._ahead
        )
        self._reconciler = Reconciler(
            self._cache, negatives, dataplane.config, client, settings, metrics
        )
        self._prober = Prober(self._gateways, netns, settings.probe_s, metrics.probe_rtt_s)
        self._advertiser = Advertiser(dataplane, netns, settings.router_advert_s)
        self._sessions = SessionCollector(dataplane, settings, metrics)
        self.state = AgentState(
            settings.host_id, dataplane, self._applier, self._cache, self._gateways, self._sessions,
            self._preprogrammed,
        )  # fmt: skip
        Gauges(self.state, metrics.registry)
        self._drops = DropWatch(self.state, settings.samples_kept)
        self._flows = FlowMeter(dataplane.sessions)

    async def run(self) -> None:
        """Run until cancelled."""
        address_file = self._settings.run_dir / f"vswitch-{self._settings.host_id}.http"
        app = health_app(self._checks(), self._metrics.registry)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.decide())
            tasks.create_task(self._prober.run())
            tasks.create_task(self._advertiser.run())
            tasks.create_task(serve_http(app, self._settings.http, address_file))

    async def decide(self) -> None:
        """All that needs no more than the packet path's seam, devices and bus, until cancelled.

        A simulated host runs this alone: it has no underlay to probe gateways over.
        """
        host_id, bus = self._settings.host_id, self._bus
        shower = Shower(self.state)
        host, fleet = subjects.all_of_host(host_id), subjects.FLEET
        async with asyncio.TaskGroup() as tasks:
            for task in (
                self._devices.run(self._applier.wake),
                self._applier.run(),
                self._learner.run(),
                self._pushed.run(bus, self._own_vtep),
                self._reconciler.run(),
                self._preprogrammed.run(),
                self._sessions.run(),
                self._reporter.run(),
                bus.follow(subjects.HOSTS_STREAM, host, self.on_document, last=True),
                bus.follow(subjects.HOSTS_STREAM, fleet, self.on_fleet, last=True),
                bus.listen(subjects.REPORT, self._reporter.on_command),
                bus.serve(subjects.show("vswitch", host_id), shower.answer, concurrency=1),
                self._drops.run(),
                bus.serve(subjects.drops(host_id), self._drops.answer, concurrency=1),
                bus.serve(subjects.flows(host_id), self._flows.answer, concurrency=4),
                bus.serve(
                    subjects.trace("vswitch", host_id), TraceDesk(self.state).answer, concurrency=1
                ),
            ):
                tasks.create_task(task)

    async def on_document(self, data: bytes) -> None:
        """Take a host document, or what changed in it since; what is none of ours, or older than
        what runs, changes nothing."""
        try:
            document = decode_host(data)
        except BadMessage as error:
            self._reject(error, "host document")
            return
        if document.host_id != self._settings.host_id:
            self._metrics.rejected.labels("another host's").inc()
        elif desired := self._applier.offer(document):
            self.on_desired(desired)
        else:
            self._metrics.rejected.labels("older").inc()

    def on_desired(self, desired: Desired) -> None:
        """The host shall run this from now on."""
        self._preprogrammed.want(desired.preprogrammed)

    async def on_fleet(self, data: bytes) -> None:
        """Take the fleet's document, likewise."""
        try:
            fleet = decode(data, FleetDocument)
            if self._gateways.apply(fleet, self._own_vtep()):
                self._fleet = fleet
                self._reporter.now()
            else:
                self._metrics.rejected.labels("older").inc()
        except (BadMessage, MalformedTable) as error:
            self._reject(error, "fleet document")

    def _reject(self, error: Exception, what: str) -> None:
        reason = "unknown version" if isinstance(error, UnknownVersion) else "garbage"
        self._metrics.rejected.labels(reason).inc()
        log.warning("%s ignored: %s", what, error)

    def _on_underlay(self) -> None:
        if self._fleet is not None:  # the own address is another one now
            self._gateways.apply(self._fleet, self._own_vtep())

    def _ahead(self) -> frozenset[int]:
        return self._preprogrammed.whole

    def _own_vtep(self) -> int | None:
        underlay = self._applier.underlay
        return int.from_bytes(underlay.vtep) if underlay else None

    def _checks(self) -> dict[str, Check]:
        device = self._settings.underlay_device

        def check(holds: Callable[[], object], why: str) -> Check:
            return lambda: None if holds() else why

        return {
            "bus": check(lambda: self._bus.connected, "not connected"),
            "underlay": check(
                lambda: self._applier.underlay, f"no device {device} with an IPv4 address"
            ),
            "document": check(lambda: self._applier.revision, "none received yet"),
            "fleet": check(lambda: self._gateways.revision, "no fleet document received yet"),
        }
