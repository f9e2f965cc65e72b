"""The gateway: its parts, and the tasks that run them until it is told to end."""

import asyncio
from contextlib import suppress
from typing import Final

from prometheus_client import CollectorRegistry

from achelous_gateway.follower import Follower
from achelous_gateway.journal import RspJournal
from achelous_gateway.pusher import Pusher
from achelous_gateway.relay import Relay
from achelous_gateway.reporter import Reporter
from achelous_gateway.rsp_server import RspServer
from achelous_gateway.settings import GatewaySettings
from achelous_gateway.standing import Standing
from achelous_gateway.stats import Stats
from achelous_gateway.tracer import TraceDesk
from achelous_shared import messages, rsp, subjects
from achelous_shared.bus import Bus
from achelous_shared.messages import BadMessage, GatewayShow, ShowRequest, VpcView
from achelous_shared.route_following.keeper import Keeper
from achelous_shared.route_following.snapshots import Snapshots
from achelous_shared.telemetry import Check, health_app, serve_http

_VOUCH_S: Final = 0.1


class Agent:
    """One gateway on a bus and a data plane that are open already."""

    def __init__(self, settings: GatewaySettings, bus: Bus, relay: Relay) -> None:
        self.settings = settings
        self.relay = relay
        self.stats = Stats()
        self._bus = bus
        self._standing = Standing()
        table = relay.table
        journal = RspJournal()
        self.keeper = Keeper(
            table, None, journal, self.stats, lambda vni: self._reporter.moved(vni)
        )
        self._reporter = Reporter(settings.gateway_id, bus, self.keeper.revisions, self.serving)
        self._follower = Follower(
            settings.gateway_id, bus, self.keeper, relay, self._standing, self.stats
        )
        self._snapshots = Snapshots(bus, self.keeper, self.stats)
        self._rsp = RspServer(
            table,
            journal.stands,
            journal.changes,
            self.stats,
            mtu=settings.guest_mtu,
            whole=lambda: self._standing.whole,
        )

    def serving(self) -> bool:
        """Whether vSwitches should use this gateway."""
        return self._standing.in_step() and self.relay.trouble() is None

    async def run(self, registry: CollectorRegistry) -> None:
        """Until cancelled. What the data plane holds is adopted, and stays as it is at the end."""
        self.keeper.adopt()
        settings = self.settings
        address_file = settings.run_dir / f"gateway-{settings.gateway_id}.http"
        async with asyncio.TaskGroup() as group:
            for task in (
                self._follower.run(),
                self._snapshots.run(),
                self._reporter.run(),
                self._vouch(),
                self.relay.run(),
                self._bus.serve_batches(
                    subjects.rsp(settings.gateway_id),
                    self._rsp.answer,
                    max_payload=rsp.MAX_REQUEST_BYTES,
                ),
                Pusher(self._bus, self.relay, self._rsp, self.stats).run(),
                self._bus.serve(subjects.show("gateway", settings.gateway_id), self._show),
                self._bus.serve(
                    subjects.trace("gateway", settings.gateway_id),
                    TraceDesk(self.relay).answer,
                    concurrency=1,
                ),
                self._bus.listen(subjects.REPORT, self._reporter.on_command),
                serve_http(health_app(self.checks(), registry), settings.http, address_file),
            ):
                group.create_task(task)

    def checks(self) -> dict[str, Check]:
        """What /readyz asks."""
        return {
            "bus": lambda: None if self._bus.connected else "not connected",
            "tables": lambda: None if self._standing.in_step() else "not in step yet",
            "dataplane": self.relay.trouble,
        }

    async def _vouch(self) -> None:
        """Renew the heartbeat that the data plane answers probes with, while we are serving."""
        served = False
        while True:
            self._standing.observe(self._bus.connected)
            serving = self.serving()
            if serving:
                self.relay.vouch()
            if serving != served:
                self._reporter.report_all()
            served = serving
            with suppress(TimeoutError):
                async with asyncio.timeout(_VOUCH_S):
                    await self._standing.settled.wait()
            self._standing.settled.clear()

    async def _show(self, data: bytes) -> bytes:
        try:
            limit = max(0, messages.decode(data, ShowRequest).limit)
        except BadMessage:
            self.stats.bad_messages += 1
            limit = 0
        counters = self.relay.counters()
        vpcs = sorted(self.keeper.vpcs.values(), key=lambda vpc: vpc.vni)
        show = GatewayShow(
            gateway_id=self.settings.gateway_id,
            serving=self.serving(),
            vpcs=tuple(
                VpcView(vni=vpc.vni, revision=vpc.revision, routes=self.keeper.table.count(vpc.vni))
                for vpc in vpcs[:limit]
            ),
            vpcs_total=len(vpcs),
            routes_total=len(self.keeper.table),
            relayed_packets=counters.relayed_packets,
            relayed_bytes=counters.relayed_bytes,
            probes=counters.probes,
            rsp_requests=self.stats.rsp_requests,
            rsp_entries=self.stats.rsp_entries,
            drops=counters.drops,
        )
        return messages.encode(show)
