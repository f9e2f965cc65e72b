"""What the agent counts. No label ever holds an address, a port or a vNIC."""

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram

_RTT_BUCKETS_S = (
    0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0,
)  # fmt: skip


@dataclass(slots=True)
class Metrics:
    """Counters and histograms of one agent; gauges are read at scrape time (`gauges.py`)."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    learned: Counter = field(init=False)
    learn_events: Counter = field(init=False)
    confirmed: Counter = field(init=False)
    changed: Counter = field(init=False)
    removed: Counter = field(init=False)
    rsp: Counter = field(init=False)
    rsp_s: Histogram = field(init=False)
    rsp_bytes: Counter = field(init=False)
    late_s: Histogram = field(init=False)
    rechecks: Counter = field(init=False)
    probe_rtt_s: Histogram = field(init=False)
    rejected: Counter = field(init=False)
    sessions_expired: Counter = field(init=False)
    apply_s: Histogram = field(init=False)

    def __post_init__(self) -> None:
        self.learn_events = self._counter("learn_events", "Destinations that the packet path named")
        self.learned = self._counter("fc_learned", "Destinations asked for, by answer", "answer")
        self.confirmed = self._counter("fc_confirmed", "Entries found unchanged by a check")
        self.changed = self._counter("fc_changed", "Entries whose route had changed")
        self.removed = self._counter("fc_removed", "Entries dropped, by reason", "reason")
        self.rsp = self._counter("rsp_requests", "RSP requests, by outcome", "outcome")
        self.rsp_s = self._histogram("rsp_seconds", "Time until a gateway's RSP reply")
        self.rsp_bytes = self._counter("rsp_bytes", "Payload of RSP, by direction", "direction")
        self.late_s = self._histogram(
            "route_late_seconds", "From a gateway's having a change until it is acted on here"
        )
        self.rechecks = self._counter("fc_rechecks", "VPCs of which all entries had to be checked")
        self.probe_rtt_s = self._histogram("probe_rtt_seconds", "Round trip of a gateway probe")
        self.rejected = self._counter(
            "bus_rejected", "Messages from the bus that were not acted on, by reason", "reason"
        )
        self.sessions_expired = self._counter("sessions_expired", "Sessions dropped for idleness")
        self.apply_s = self._histogram("apply_seconds", "Time to bring the host to its document")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"achelous_vswitch_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(
            f"achelous_vswitch_{name}", text, buckets=_RTT_BUCKETS_S, registry=self.registry
        )
