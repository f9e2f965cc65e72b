"""Prometheus metrics, read from the gateway's state when they are asked for.

No label ever holds an address or a VNI.
"""

from collections.abc import Iterator
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from achelous_gateway.agent import Agent
from achelous_shared.route_following.plan import State
from achelous_shared.route_following.stats import FOLLOWED

_HELP: Final = {
    **FOLLOWED,
    "table_full": "changes refused because the route table is full",
    "rsp_requests": "RSP requests answered",
    "rsp_entries": "destinations asked for by RSP",
    "rsp_misses": "of these, without a route",
    "rsp_garbage": "RSP requests that were garbage",
    "rsp_watches": "VPCs whose changes were asked for by RSP",
    "rsp_pushed": "routes sent unasked to hosts for which packets were relayed",
    "rsp_changes": "changes named in answer to that",
    "rsp_rechecks": "answers that the changes are not remembered so far back",
}


class GatewayMetrics(Collector):
    """Everything that a gateway counts, prefix `achelous_gateway_`."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        agent = self._agent
        vpcs = agent.keeper.vpcs.values()
        yield _gauge("serving", "1 while the tables are vouched for", float(agent.serving()))
        yield _gauge("routes", "routes held", len(agent.keeper.table))
        yield _gauge("route_capacity", "routes that fit", agent.keeper.table.capacity)
        yield _gauge("vpcs", "VPCs held", len(vpcs))
        behind = sum(vpc.state is not State.FOLLOWING for vpc in vpcs)
        yield _gauge("vpcs_behind", "VPCs being read whole or waiting for it", behind)
        for name, text in _HELP.items():
            yield _counter(name, text, getattr(agent.stats, name))
        relay = agent.relay.counters()
        yield _counter("relayed_packets", "packets relayed to a host", relay.relayed_packets)
        yield _counter("relayed_bytes", "bytes relayed to a host", relay.relayed_bytes)
        yield _counter("probes", "probes of vSwitches answered", relay.probes)
        drops = CounterMetricFamily(
            "achelous_gateway_drops", "packets dropped, by reason", labels=["reason"]
        )
        for reason, count in relay.drops.items():
            drops.add_metric([reason], count)
        yield drops


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"achelous_gateway_{name}", text, value)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"achelous_gateway_{name}", text, value)
