"""What programming counts and measures."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.programming.pending import Change, Pending
from achelous_shared.telemetry import LATENCY_BUCKETS_S, latency_buckets

_STAGES: Final = ("committed", "published", "gateways_applied", "host_applied", "active")
_BOUNDS: Final = np.array([*LATENCY_BUCKETS_S, np.inf, np.nan])
_LATENCY: Final = "From the acceptance of an instance to the end of each stage"


class Latencies(Collector):
    """A histogram by stage that takes many observations at once: the library's takes one a call."""

    def __init__(self, name: str, documentation: str, stages: Sequence[str]) -> None:
        self._name, self._documentation, self._stages = name, documentation, stages
        self._counts = np.zeros((len(stages), len(LATENCY_BUCKETS_S) + 1), np.int64)
        self._sums = np.zeros(len(stages))

    def observe(self, seconds: NDArray[np.float64]) -> None:
        """A row for each stage; NaN: not known."""
        seconds = np.maximum(seconds, 0)
        # NaN is behind all others, in a bucket that is not kept
        places = np.searchsorted(_BOUNDS, seconds)
        places += np.arange(len(seconds))[:, None] * len(_BOUNDS)
        found = np.bincount(places.ravel(), minlength=len(seconds) * len(_BOUNDS))
        self._counts += found.reshape(len(seconds), -1)[:, : self._counts.shape[1]]
        self._sums += np.nansum(seconds, axis=1)

    def collect(self) -> Iterator[Metric]:
        """What was observed so far."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=["stage"])
        for stage, counts, total in zip(self._stages, self._counts, self._sums, strict=True):
            family.add_metric([stage], latency_buckets(counts.tolist()), sum_value=float(total))
        yield family


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
        self._latency = Latencies("programming_latency_seconds", _LATENCY, _STAGES)
        registry.register(self._latency)

    def count_pending(self, pending: Iterable[Pending]) -> None:
        """Set the gauges of pending instances."""
        counts = dict.fromkeys(InstanceState, 0)
        for part in pending:
            counts[part.cohort.state] += len(part)
        del counts[InstanceState.ACTIVE]
        for state, count in counts.items():
            self._pending.labels(state).set(count)

    def became_active(
        self, parts: Iterable[Pending], made: Mapping[Change, int], at: float
    ) -> None:
        """Measure the stages of instances that became ACTIVE at ``at``, Unix seconds.

        ``made``: how many of each change did; the others, of which there are few, are anybody.
        """
        left = dict(made)
        accepted, done = [], []
        for part in parts:
            size = min(len(part), left.get(part.change, 0))
            left[part.change] = left.get(part.change, 0) - size
            if size:
                accepted.append(part.accepted()[:size])
                done.append(_done_at(part, at))
        if done:
            ended = np.repeat(np.array(done).T, [len(some) for some in accepted], axis=1)
            self._latency.observe(ended - np.concatenate(accepted))


def _done_at(part: Pending, at: float) -> tuple[float, ...]:
    """When each of `_STAGES` was done; NaN: not known."""
    gateways_at, host_at = part.gateways_applied_at or at, part.host_applied_at or at
    # those who apply may tell before the publisher does
    published_at = part.published_at or min(gateways_at, host_at)
    return part.cohort.committed_at or math.nan, published_at, gateways_at, host_at, at
