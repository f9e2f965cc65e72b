"""How long one more instance takes until it can be reached, in VPCs of growing size (Fig. 10)."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from achelous_loadgen import waiting
from achelous_loadgen.options import Sizes
from achelous_loadgen.results import Quantiles
from achelous_loadgen.sim.host import SimulatedHost
from achelous_loadgen.tenant import Created, Vpc
from achelous_loadgen.world import World
from achelous_shared.routes import ip_bytes

_WAIT_S: Final = 30.0
_FILL_S: Final = 300.0
_SAMPLE_S: Final = 45.0
_FEWEST: Final = 10
_TELLING: Final = 1_000
"""So many instances tell how long more of them take."""

AHEAD: Final = "preprogrammed"
"""The model that is not `alm`."""

Say = Callable[[float, str], None]
"""Progress: part done, 0..1, and what is being done."""

Stages = npt.NDArray[np.float64]
"""Changes by stages (n, 4): milliseconds from the call until reply, all gateways, the instance's
own host, and another host that has learned it (all others that hold it, if ahead)."""


@dataclass(slots=True)
class Figures:
    """``stopped``: why there are none of larger VPCs; ``unsettled``: what went on meanwhile."""

    by_size: dict[str, Quantiles] = field(default_factory=dict)
    stopped: str | None = None
    unsettled: list[str] = field(default_factory=list)


class Allowance:
    """Seconds for one model. What filling has taken says whether the next size fits in."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._begun = time.monotonic()
        self._each = 0.0

    def filled(self, count: int, seconds: float) -> None:
        """Note that ``count`` more instances took so long until all had settled."""
        if count >= _TELLING:
            self._each = seconds / count

    def refuses(self, count: int) -> str | None:
        """Why ``count`` more are too many; None: they are not."""
        left = self._seconds - (time.monotonic() - self._begun)
        wanted = count * self._each
        if wanted <= left:
            return None
        return (
            f"filling it would take about {wanted:.0f} s, and {max(left, 0.0):.0f} s are left of"
            f" the {self._seconds:g} s that this model has"
        )


async def measure(
    world: World, model: str, wanted: Sizes, seconds: float, say: Say
) -> tuple[Vpc, Figures]:
    """A VPC that grows from size to size, as far as it comes in ``seconds``. The VPC stays.

    Another VPC keeps the first size and is measured in turn with the one that grows, so that what
    else goes on meets both. The first size's figures are those beside the last size.
    """
    sizes = wanted.vpc
    small = await world.tenant.vpc(f"small-{model}", model)
    vpc = await world.tenant.vpc(f"grows-{model}", model)
    figures, allowance = Figures(), Allowance(seconds)
    for each in (small, vpc):
        if model == AHEAD:  # a host holds the routes of VPCs that its guests are in
            await world.tenant.fill(each, [host.place for host in world.hosts], len(world.hosts))
        await grow(world, each, sizes[0])
    for number, size in enumerate(sizes):
        say(number / len(sizes), f"{model}, VPC of {size:,}")
        missing, begun = size - vpc.filled, time.monotonic()
        if why := allowance.refuses(missing):
            figures.stopped = f"was not measured with {size:,} instances: {why}"
            break
        try:
            if late := await grow(world, vpc, size):
                figures.unsettled.append(f"measured with {size:,} instances all the same: {late}")
            allowance.filled(missing, time.monotonic() - begun)
            samples = wanted.last_samples if size == sizes[-1] else wanted.samples
            beside, here = await _in_turn(world, (small, vpc), samples)
        except TimeoutError as error:
            figures.stopped = f"came to its end with {size:,} instances: {error}"
            break
        figures.by_size[str(sizes[0])] = _quantiles(beside)
        if size > sizes[0]:
            figures.by_size[str(size)] = _quantiles(here, beside)
    return vpc, figures


async def grow(world: World, vpc: Vpc, size: int) -> str | None:
    """Fill to ``size`` instances, and wait until all that has settled; what has not in time.

    Raises TimeoutError if the gateways do not know them.
    """
    missing = size - vpc.filled
    if missing <= 0:
        return None
    places = await world.park_hosts(missing)
    before = world.usage.cpu_seconds()
    last = await world.tenant.fill(vpc, places, missing)
    accepted = time.perf_counter()
    vteps = {str(place.id): place.vtep for place in places}
    targets = vpc.targets(last, [vteps[one.host_id] for one in last])
    await world.watch.until_met(targets, _FILL_S)
    try:
        await world.tenant.until_settled(_FILL_S)
    except TimeoutError as error:
        return str(error)
    finally:
        vpc.settle_s += time.perf_counter() - accepted
        vpc.load_cpu_s.update(world.usage.spent_since(before))
    return None


async def _in_turn(world: World, vpcs: Sequence[Vpc], samples: int) -> list[Stages]:
    """For each VPC the stages of ``samples`` changes, taken in turn; fewer when time is up."""
    for vpc in vpcs:
        await _one(world, vpc, 0)  # connections and caches are warm from here on
    taken: list[list[tuple[float, ...]]] = []
    end = time.monotonic() + _SAMPLE_S
    while len(taken) < samples and (time.monotonic() < end or len(taken) < _FEWEST):
        taken.append([await _one(world, vpc, len(taken) + 1) for vpc in vpcs])
    return [np.array(stages) * 1e3 for stages in zip(*taken, strict=True)]


def _quantiles(stages: Stages, beside: Stages | None = None) -> Quantiles:
    p50, p99 = np.percentile(stages.max(axis=1), [50, 99]).round(2).tolist()
    names = ("api", "gateways", "host", "learned")
    ratio = None if beside is None else p50 / float(np.median(beside.max(axis=1)))
    return Quantiles(
        p50_ms=p50,
        p99_ms=p99,
        samples=len(stages),
        parts=dict(zip(names, np.median(stages, axis=0).round(2).tolist(), strict=True)),
        p50_ratio=None if ratio is None else round(ratio, 3),
    )


async def _one(world: World, vpc: Vpc, number: int) -> tuple[float, ...]:
    """Seconds from the call to: reply, all gateways, its own host, another host has learned it."""
    hosts = world.hosts
    own, other = hosts[number % len(hosts)], hosts[(number + 1) % len(hosts)]
    called = time.perf_counter()
    created = await world.tenant.create(vpc, own.place, f"one-{vpc.filled}-{number}")
    replied = time.perf_counter()
    ip = ip_bytes(created.vnics[0].ip)
    targets = vpc.targets([created], [own.place.vtep])
    there = asyncio.create_task(
        waiting.until(lambda: own.path.has_port(vpc.vni, ip), "no port on its host", _WAIT_S, own)
    )
    try:
        known = await world.watch.until_met(targets, _WAIT_S)
        learned = await _reached(world, vpc, ip, own, other)
        running = await there
    finally:
        there.cancel()
    await remove(world, vpc, [created])
    return replied - called, known - called, running - called, learned - called


async def _reached(
    world: World, vpc: Vpc, ip: bytes, own: SimulatedHost, other: SimulatedHost
) -> float:
    """When another host has learned it or, if routes are programmed ahead, when all others have."""
    if vpc.model != AHEAD:
        return await waiting.until_learned(other, vpc.vni, ip, own.place.vtep, _WAIT_S)
    missing = [host for host in world.hosts if host is not own]

    def all_hold() -> bool:
        missing[:] = [host for host in missing if not host.holds(vpc.vni, ip, own.place.vtep)]
        return not missing

    others = tuple(missing)
    return await waiting.until(all_hold, "some hosts have no route to it", _WAIT_S, *others)


async def remove(world: World, vpc: Vpc, created: list[Created]) -> None:
    """Delete, and wait until no gateway has them."""
    await world.tenant.delete_many(created)
    await world.watch.until_met(vpc.targets(created, [None] * len(created)), _WAIT_S)
