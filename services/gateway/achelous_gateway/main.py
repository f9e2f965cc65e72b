"""Wires the gateway from its settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from achelous_gateway.agent import Agent
from achelous_gateway.metrics import GatewayMetrics
from achelous_gateway.relay import BpfRelay, NoRelay, Relay
from achelous_gateway.settings import GatewaySettings
from achelous_shared.bpf import missing_for_ebpf
from achelous_shared.bus import Bus
from achelous_shared.service import run
from achelous_shared.telemetry import setup_logging


class NoDataplane(Exception):
    """This machine can not run the relay."""


def main() -> int:
    """Run until SIGTERM; the exit code."""
    settings = GatewaySettings()  # type: ignore[call-arg]  # from the environment
    setup_logging("gateway", settings.log_level)
    return run(serve(settings))


async def serve(settings: GatewaySettings) -> None:
    """Run the gateway until cancelled."""
    name = f"gateway-{settings.gateway_id}"
    async with (
        open_relay(settings) as relay,
        Bus.connect(settings.nats_url, role="gateway", name=name) as bus,
    ):
        agent = Agent(settings, bus, relay)
        registry = CollectorRegistry()
        registry.register(GatewayMetrics(agent))
        await agent.run(registry)


@asynccontextmanager
async def open_relay(settings: GatewaySettings) -> AsyncIterator[Relay]:
    """The data plane that the settings ask for. Raises `NoDataplane` where it can not run."""
    if settings.dataplane == "none":
        yield NoRelay(settings.route_capacity)
        return
    if missing := missing_for_ebpf():
        raise NoDataplane(
            f"{'; '.join(missing)}. ACHELOUS_DATAPLANE=none runs the tables and RSP alone"
        )
    async with BpfRelay.open(settings) as relay:
        yield relay
