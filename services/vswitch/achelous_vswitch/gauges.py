"""What is read from the packet path when Prometheus asks, and not counted on the way."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from achelous_shared.route_following.stats import FOLLOWED
from achelous_vswitch.agent_state import AgentState

_PATHS = ("local", "direct", "relayed")


class Gauges(Collector):
    """Ports, entries, sessions and gateways now, and packets since the packet path began."""

    def __init__(self, state: AgentState, registry: CollectorRegistry) -> None:
        self._state = state
        registry.register(self)

    def describe(self) -> list[Metric]:
        """Nothing beforehand: registering must not read the tables."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Everything as it is now."""
        state = self._state
        yield self._ports()
        yield _gauge("fc_entries", "Entries of the forwarding cache", len(state.cache))
        table = state.preprogrammed.table
        yield _gauge("preprogrammed_routes", "Routes of preprogrammed VPCs held", len(table))
        yield _gauge("preprogrammed_capacity", "Routes of them that fit", table.capacity)
        lacking = len(table.lacking)
        yield _gauge("preprogrammed_vpcs_lacking", "VPCs of which some did not fit", lacking)
        for name, text in FOLLOWED.items():
            yield _counter(f"preprogrammed_{name}", text, getattr(state.preprogrammed.stats, name))
        yield _counter("fc_evicted", "Entries evicted for want of room", state.cache.evicted)
        yield _gauge("sessions", "Sessions at the last full scan", state.sessions.total)
        reclaimed = state.sessions.reclaimed
        yield _counter("sessions_reclaimed", "Sessions removed for want of room", reclaimed)
        gateways = GaugeMetricFamily("achelous_vswitch_gateways", "Gateways", labels=["state"])
        live = [gateway.live for gateway in state.gateways]
        gateways.add_metric(["live"], live.count(True))
        gateways.add_metric(["dead"], live.count(False))
        yield gateways
        yield _gauge("revision", "Of the document that is run", state.applier.revision)
        if state.applier.ports is not None:
            yield from self._packets()

    def _ports(self) -> Metric:
        applier = self._state.applier
        ports = GaugeMetricFamily("achelous_vswitch_ports", "vNICs of the host", labels=["state"])
        desired = applier.desired.ports.values() if applier.desired else ()
        down = applier.failed.keys() | set(applier.waiting)
        ports.add_metric(["active"], sum(want.vnic_id not in down for want in desired))
        ports.add_metric(["waiting"], len(applier.waiting))
        ports.add_metric(["failed"], len(applier.failed))
        return ports

    def _packets(self) -> Iterator[Metric]:
        ports = self._state.applier.ports
        if ports is None:
            return
        totals = ports.host_totals()
        sent = CounterMetricFamily(
            "achelous_vswitch_tx_packets",
            "Packets of guests, by the way they took",
            labels=["path"],
        )
        for path in _PATHS:
            sent.add_metric([path], int(totals[path]))
        yield sent
        yield _counter("rx_packets", "Packets to guests", int(totals["rx_packets"]))
        yield _counter("tx_bytes", "Bytes of guests", int(totals["tx_bytes"]))
        yield _counter("rx_bytes", "Bytes to guests", int(totals["rx_bytes"]))
        yield _counter("slow_path", "Packets that no session spoke for", int(totals["slow_path"]))
        lost = int(totals["samples_lost"])
        yield _counter("samples_lost", "Dropped packets that could not be sampled", lost)
        drops = CounterMetricFamily(
            "achelous_vswitch_drops", "Packets dropped, by reason", labels=["reason"]
        )
        for reason, count in self._state.host_drops().items():
            drops.add_metric([reason], count)
        yield drops


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"achelous_vswitch_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"achelous_vswitch_{name}", text, value=value)
