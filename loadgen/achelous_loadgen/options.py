"""What a run was asked for, and how large its parts are."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from achelous_loadgen.results import WHOLE_VPC

_DECADES: Final = (10, 100, 1_000, 10_000, 100_000, 1_000_000, WHOLE_VPC)


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How much of each. Times in seconds."""

    vpc: tuple[int, ...] = _DECADES
    """Instances in the VPC, ascending, at which programming time is measured."""
    samples: int = 100
    """Instances created one by one at each size."""
    last_samples: int = 300
    """At the largest: a p99 of 100 is their largest."""
    ahead_hosts: int = 4
    """Simulated hosts where every route is programmed ahead: each holds the whole VPC."""
    ahead_s: float = 120.0
    """For that model. A larger VPC is begun only if it can be filled within."""
    hosts: int = 8
    """Simulated hosts."""
    burst: int = 20_000
    churn_rate: float = 1157.0
    churn_s: float = 60.0
    learning_hosts: int = 200
    learning_s: float = 45.0
    mean_peers: int = 1_900
    """Destinations that the guests of a host talk to, on average (paper, section 7)."""
    reconcile_entries: int = 1_900
    reconcile_s: float = 10.0
    fault_s: float = 30.0
    """How long a fault that has a length lasts."""
    fault_rate: float = 100.0
    single_s: float = 10.0
    lookup_s: float = 5.0


QUICK: Final = Sizes(
    vpc=(10, 100, 1_000),
    samples=10,
    last_samples=10,
    ahead_hosts=2,
    ahead_s=15.0,
    hosts=4,
    burst=500,
    churn_rate=50.0,
    churn_s=5.0,
    learning_hosts=6,
    learning_s=5.0,
    mean_peers=100,
    reconcile_entries=500,
    reconcile_s=2.0,
    fault_s=3.0,
    fault_rate=20.0,
    single_s=2.0,
    lookup_s=1.0,
)


def no_larger(sizes: Sizes, largest: int) -> Sizes:
    """The same with no VPC of more than ``largest`` instances; that size is the last one."""
    below = tuple(size for size in sizes.vpc if size < largest)
    return msgspec.structs.replace(sizes, vpc=(*below, largest))


def with_churn(sizes: Sizes, rate: float | None, seconds: float | None) -> Sizes:
    """The same with churn of another rate or length; None: as it is."""
    return msgspec.structs.replace(
        sizes,
        churn_rate=sizes.churn_rate if rate is None else rate,
        churn_s=sizes.churn_s if seconds is None else seconds,
    )


@dataclass(frozen=True, slots=True)
class Attach:
    """A platform that runs already. ``nats_url``: of a user who may do what all roles may."""

    url: str
    token: str = field(repr=False)
    nats_url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Options:
    """One run. ``scenarios``: in their order."""

    scenarios: tuple[str, ...]
    sizes: Sizes
    attach: Attach | None = None
    json: Path | None = None
    html: Path | None = None
