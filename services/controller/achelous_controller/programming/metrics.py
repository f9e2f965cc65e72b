"""What programming counts and measures."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.programming.pending import Pending
from achelous_shared.telemetry import LATENCY_BUCKETS_S


class Metrics:
    """The metrics of one controller; those of the leader are 0 elsewhere."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.leader = Gauge(
            "programming_leader", "1 while this controller leads", registry=registry
        )
        self.outbox = Gauge(
            "programming_outbox_rows", "Changes that wait to be published", registry=registry
        )
        self.bad_messages = Counter(
            "programming_bad_messages",
            "Messages of an unknown version or without meaning, left alone",
            ["subject"],
            registry=registry,
        )
        self.published = Counter(
            "programming_published", "Messages put on streams", ["kind"], registry=registry
        )
        self.too_large = Counter(
            "programming_documents_too_large",
            "Documents of hosts that exceed what the bus takes as one message",
            registry=registry,
        )
        self._pending = Gauge(
            "programming_pending_instances",
            "Instances that are not ACTIVE",
            ["state"],
            registry=registry,
        )
        self._latency = Histogram(
            "programming_latency_seconds",
            "From the acceptance of an instance to the end of each stage",
            ["stage"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )

    def count_pending(self, instances: Iterable[Pending]) -> None:
        """Set the gauges of pending instances."""
        counts = dict.fromkeys(InstanceState, 0)
        for instance in instances:
            counts[instance.state] += 1
        del counts[InstanceState.ACTIVE]
        for state, count in counts.items():
            self._pending.labels(state).set(count)

    def became_active(self, instances: Iterable[Pending], at: float) -> None:
        """Measure the stages of instances that became ACTIVE at ``at``, Unix seconds."""
        for instance in instances:
            gateways_at, host_at = instance.gateways_applied_at, instance.host_applied_at
            stages = {
                "committed": instance.committed_at,
                # those who apply may tell before the publisher does
                "published": instance.published_at or min(gateways_at or at, host_at or at),
                "gateways_applied": gateways_at,
                "host_applied": host_at,
                "active": at,
            }
            for stage, done_at in stages.items():
                if done_at is not None:
                    latency = max(0.0, done_at - instance.accepted_at)
                    self._latency.labels(stage).observe(latency)
