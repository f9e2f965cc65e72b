"""The figures of a run, under the names by which scripts read them."""

from typing import Final

import msgspec

from achelous_loadgen.usage import Use

WHOLE_VPC: Final = 1_500_000
"""Instances of a VPC as the platform is made for."""


class Quantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Of programming time; ``parts``: medians of its stages, in ms since the call.

    ``p50_ratio``: to the p50 of the smallest VPC, measured in turn with this one.
    """

    p50_ms: float
    p99_ms: float
    samples: int
    parts: dict[str, float]
    p50_ratio: float | None = None


class Burst(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds since the call; ``vpc``: instances that were there before.

    ``on_simulated_hosts``: of these it is known when their host ran them; the others' hosts report.
    """

    instances: int
    last_reachable_s: float
    api_s: float
    gateways_s: float
    hosts_s: float
    vpc: int
    on_simulated_hosts: int
    cpu_s: dict[str, float]
    """Of each service until the last one was reachable."""


class Churn(msgspec.Struct, frozen=True, kw_only=True):
    """``rate_per_s``: reached, beside ``wanted_per_s``. Times from when a change was due.

    ``not_started``: changes for which there was no room; ``moves``: those among them that gave an
    instance another host.
    """

    rate_per_s: float
    wanted_per_s: float
    seconds: float
    p50_ms: float
    p99_ms: float
    lost: int
    freshness_p99_ms: float | None
    """From when all gateways knew of a change to when the FC that held the route had acted."""
    freshness_moved_p99_ms: float | None
    """That of moves, whose routes change and do not end."""
    freshness_samples: int
    refused: int
    not_started: int
    moves: int
    move_p99_ms: float | None
    cpu_ms_per_change: dict[str, float]
    """Of each service, the load generator with its simulated hosts among them."""

    @property
    def behind(self) -> bool:
        """Whether changes came faster than they could be made."""
        return self.rate_per_s < 0.95 * self.wanted_per_s


class Relay(msgspec.Struct, frozen=True, kw_only=True):
    """Of one gateway with its relay. ``delta_...``: from when the bus's stream took the first
    message of a delta of so many routes until the gateway reported the last, by their own clocks;
    RSP one request at a time, meanwhile while controllers make the deltas' instances."""

    cold_start_s: float
    delta_entries: int
    deltas: int
    delta_p50_ms: float
    delta_p99_ms: float
    rsp_p99_at_rest_ms: float
    rsp_p99_meanwhile_ms: float


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """Of one gateway at ``routes`` routes; null: not on this platform, or not as this user."""

    cold_start_s: float | None
    cold_start_with_relay_s: float | None
    lookups_per_s: float
    rss_mb: float | None
    routes: int
    with_relay: Relay | None


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Filling the VPC: seconds until the last call was accepted, from then until all instances
    were ACTIVE, and of each service's CPU for both."""

    accepted_s: float
    settled_s: float
    cpu_s: dict[str, float]


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """Lone creations in ms, which are given an address or name one.

    ``statement``: mean of the statement that finds a free address; null: nobody can say.
    """

    given_p50: float
    given_p99: float
    named_p50: float
    named_p99: float
    statement: float | None


class Controller(msgspec.Struct, frozen=True, kw_only=True):
    """``load_1500000_s``: null unless so many were loaded; ``list_p99_ms``: pages of 100 by what
    they are of, deep: far behind the first."""

    single_changes_per_s: float
    single_p99_ms: float
    load_1500000_s: float | None
    loaded: int
    load_s: float
    load: Load
    list_p99_ms: dict[str, float]
    allocation_ms: Allocation


class FcEntries(msgspec.Struct, frozen=True, kw_only=True):
    """Over hosts."""

    mean: float
    p90: float
    p99: float
    max: float


class Learning(msgspec.Struct, frozen=True, kw_only=True):
    """``rsp_share``: of guests' and RSP's bytes together. ``cdf``: sizes of FCs, ascending.
    ``vpc``: instances that there were to talk to."""

    vpc: int
    fc_entries: FcEntries
    rsp_share: float
    hosts: int
    seconds: float
    traffic_bytes: int
    rsp_bytes: int
    cdf: list[int]


class Reconcile(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of one host at rest, both directions; null: a mode that its agent does not have."""

    per_entry_bytes_per_s: float | None
    delta_bytes_per_s: float | None
    entries: int


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """``converged_s``: from the fault's end until all was right, the rest of the churn and its
    removal included; null: not in time.

    ``lost``: accepted changes that are not in effect; ``wrong``: entries of gateways and FCs that
    differ from the database, and instances that hang.
    """

    converged_s: float | None
    lost: int
    wrong: int


class Run(msgspec.Struct, kw_only=True):
    """What the run was on."""

    started_at: str
    seconds: float = 0.0
    cpus: int
    memory_gb: float
    load_1m: float
    attached: bool
    failures: list[str] = []
    """What did not come out, one sentence each."""


class Results(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Scenarios that were not run are left out."""

    run: Run
    programming_time: dict[str, dict[str, Quantiles]] | None = None
    """By programming model and instances in the VPC."""
    programming_time_stopped: dict[str, str] = {}
    """By model, why it was not measured at larger sizes."""
    burst: Burst | None = None
    churn: Churn | None = None
    churn_at_ease: Churn | None = None
    """At a lower rate than the one that was reached, if that was not the one wanted."""
    gateway: Gateway | None = None
    controller: Controller | None = None
    learning: Learning | None = None
    reconcile: Reconcile | None = None
    host_state_saved: float | None = None
    """Part of a host's route state that learning saves, 0..1."""
    faults: dict[str, Fault] | None = None
    services: dict[str, Use] = {}


def encode(results: Results) -> bytes:
    """JSON, indented."""
    return msgspec.json.format(msgspec.json.encode(results), indent=2)
