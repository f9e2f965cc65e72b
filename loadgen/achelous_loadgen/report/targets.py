"""What was to be reached, and whether it was."""

from collections.abc import Iterator
from dataclasses import dataclass

from achelous_loadgen.results import WHOLE_VPC, Churn, Controller, Gateway, Quantiles, Results

FRESH_MS = 150.0
"""A changed route is acted on within this and a round trip."""


LIST_MS = 100.0
"""What "fast" is of a list, where no figure was given."""


@dataclass(frozen=True, slots=True)
class Target:
    """``reached`` beside what was ``wanted``, both as text with units."""

    name: str
    wanted: str
    reached: str
    held: bool


def targets(found: Results) -> list[Target]:
    """Those of the scenarios that were run, at the sizes that they were run with."""
    made: list[Target] = []
    if alm := (found.programming_time or {}).get("alm"):
        made += _programming_time(alm)
    if burst := found.burst:
        name = f"burst of {burst.instances:,} into {burst.vpc:,}: last reachable"
        made.append(_at_most(name, burst.last_reachable_s, 1.0, "s"))
    if found.churn:
        made += _churn(found.churn)
    # what a host talks to is a large part of a small VPC
    whole = found.learning is not None and found.learning.vpc >= WHOLE_VPC
    if whole and found.host_state_saved is not None:
        made.append(_at_least("host state saved", found.host_state_saved * 100, 99.0, "%"))
    if found.gateway:
        made += _gateway(found.gateway)
    if found.controller:
        made += _controller(found.controller)
    if (rest := found.reconcile) and rest.per_entry_bytes_per_s and rest.delta_bytes_per_s:
        share = rest.delta_bytes_per_s / rest.per_entry_bytes_per_s
        name = f"RSP at rest with {rest.entries:,} entries, part of the per-entry mode"
        made.append(_at_most(name, share, 0.1, ""))
    for fault, end in (found.faults or {}).items():
        made.append(_at_most(f"{fault}: wrong or lost afterwards", end.wrong + end.lost, 0, ""))
    return made


def _programming_time(by_size: dict[str, Quantiles]) -> Iterator[Target]:
    size = max(by_size, key=int)
    largest, name = by_size[size], f"programming time, VPC of {int(size):,}"
    yield _at_most(f"{name}: p50", largest.p50_ms, 20, "ms")
    yield _at_most(f"{name}: p99", largest.p99_ms, 100, "ms")
    if largest.p50_ratio is not None:
        yield _at_most(f"{name}: p50 to that of the smallest", largest.p50_ratio, 1.1, "")


def _churn(churn: Churn) -> Iterator[Target]:
    name = "churn"
    yield _at_least(f"{name}: changes a second", churn.rate_per_s, churn.wanted_per_s * 0.99, "")
    yield _at_most(f"{name}: p99", churn.p99_ms, 150, "ms")
    lost = churn.lost + churn.refused
    yield _at_most(f"{name}: lost or refused", lost, 0, "")
    if churn.freshness_p99_ms is not None:
        yield _at_most(f"{name}: freshness p99", churn.freshness_p99_ms, FRESH_MS, "ms")


def _gateway(gateway: Gateway) -> Iterator[Target]:
    name = f"gateway, {gateway.routes:,} routes"
    if gateway.cold_start_s is not None:
        yield _at_most(f"{name}: cold start", gateway.cold_start_s, 2, "s")
    if gateway.cold_start_with_relay_s is not None:
        relayed = f"{name}: cold start with the relay"
        yield _at_most(relayed, gateway.cold_start_with_relay_s, 2, "s")
    yield _at_least(f"{name}: lookups a second", gateway.lookups_per_s, 2e6, "")
    if gateway.rss_mb is not None:
        yield _at_most(f"{name}: memory", gateway.rss_mb, 400, "MB")
    if (relay := gateway.with_relay) is not None:
        delta = f"{name}: delta of {relay.delta_entries:,}, p50"
        yield _at_most(delta, relay.delta_p50_ms, 50, "ms")


def _controller(controller: Controller) -> Iterator[Target]:
    name = "controller: single changes"
    yield _at_least(f"{name} a second", controller.single_changes_per_s, 3_400, "")
    yield _at_most(f"{name}, p99", controller.single_p99_ms, 200, "ms")
    if controller.load_1500000_s is not None:
        yield _at_most("controller: 1,500,000 loaded", controller.load_1500000_s, 60, "s")
    slowest = max(controller.list_p99_ms.values())
    yield _at_most("controller: p99 of the slowest list", slowest, LIST_MS, "ms")
    if (statement := controller.allocation_ms.statement) is not None:
        yield _at_most("controller: finding a free address", statement, 1, "ms")


def _at_most(name: str, value: float, limit: float, unit: str) -> Target:
    return Target(name, _text("at most", limit, unit), _text("", value, unit), value <= limit)


def _at_least(name: str, value: float, limit: float, unit: str) -> Target:
    return Target(name, _text("at least", limit, unit), _text("", value, unit), value >= limit)


def _text(bound: str, value: float, unit: str) -> str:
    number = f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"
    return " ".join(part for part in (bound, number, unit) if part)
