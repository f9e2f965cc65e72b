"""Many observations at once count as they would one by one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from achelous_controller.programming.metrics import Latencies
from achelous_shared.telemetry import LATENCY_BUCKETS_S

seconds = st.one_of(
    st.floats(-1, 100, width=32), st.sampled_from(LATENCY_BUCKETS_S), st.just(float("nan"))
)


@given(st.lists(st.tuples(seconds, seconds), max_size=20))
def test_the_samples_are_the_library_s(observed: list[tuple[float, float]]) -> None:
    ours, library = CollectorRegistry(), CollectorRegistry()
    latencies = Latencies("took", "How long.", ("a", "b"))
    ours.register(latencies)
    histogram = Histogram(
        "took", "How long.", ["stage"], buckets=LATENCY_BUCKETS_S, registry=library
    )
    for stage, values in zip("ab", np.reshape(observed, (-1, 2)).T, strict=True):
        child = histogram.labels(stage)
        for value in values[~np.isnan(values)]:
            child.observe(max(0.0, value))

    if observed:
        latencies.observe(np.array(observed).T)

    for family in library.collect():
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                value = ours.get_sample_value(sample.name, sample.labels)
                assert value is not None
                assert abs(value - sample.value) < 1e-9, sample
