"""One run: its scenarios in order, its progress on standard error, its figures in files."""

import asyncio
import gc
import logging
import math
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import psutil
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from achelous_lab.api import ApiRefused
from achelous_lab.process import ProcessFailed
from achelous_loadgen import results
from achelous_loadgen.http import ApiGone
from achelous_loadgen.options import Options
from achelous_loadgen.report import page
from achelous_loadgen.report.targets import targets
from achelous_loadgen.scenarios import (
    burst,
    churn,
    controllers,
    faults,
    learning,
    programming_time,
    reconcile,
    services,
)
from achelous_loadgen.tenant import Vpc
from achelous_loadgen.world import World, world
from achelous_shared.bus import BusError

_BUILT: Final = Path(__file__).parents[2] / "build" / "bpf"
"""The layouts that simulated hosts share with real ones, of this checkout."""

_GC: Final = (50_000, 20, 100)
"""Hosts and their tables stay: looking through them again and again would be most of its work."""

_SPARE_ROUTES: Final = 10_000
"""Room beside the largest VPC, for the small one and for changes."""

_SETTLE_S: Final = 60.0
_AT_EASE: Final = 0.7
"""Of the rate that churn reached, if that was less than was wanted: how late are changes then?"""
_AT_EASE_S: Final = 20.0
_BY_SIGNAL: Final = 128
"""What shells add to the number of the signal that ended a command."""

EXPECTED: Final = (ApiRefused, ApiGone, BusError, TimeoutError, ValueError, OSError)
"""What a scenario can end with that is the platform's doing, or a wrong size."""


@dataclass(slots=True)
class Running:
    """A run under way. ``vpcs``: by programming model, filled as far as it has come."""

    options: Options
    world: World
    found: results.Results
    say: Callable[[float, str], None]
    vpcs: dict[str, Vpc] = field(default_factory=dict)

    async def vpc(self) -> Vpc:
        """The VPC under load, of the largest size; filled now if it has not been yet."""
        if "alm" not in self.vpcs:
            self.vpcs["alm"] = vpc = await self.world.tenant.vpc("load")
            if late := await programming_time.grow(self.world, vpc, self.options.sizes.vpc[-1]):
                self.found.run.failures.append(late)
        return self.vpcs["alm"]


async def _programming_time(run: Running) -> None:
    await _programmed(run, "alm", math.inf)


async def _ahead(run: Running) -> None:
    if programming_time.AHEAD in run.world.tenant.models:
        await _programmed(run, programming_time.AHEAD, run.options.sizes.ahead_s)


async def _programmed(run: Running, model: str, seconds: float) -> None:
    sizes = run.options.sizes
    run.vpcs[model], figures = await programming_time.measure(
        run.world, model, sizes, seconds, run.say
    )
    found = run.found.programming_time = run.found.programming_time or {}
    found[model] = figures.by_size
    run.found.run.failures += figures.unsettled
    if figures.stopped is not None:
        run.found.programming_time_stopped[model] = figures.stopped


async def _burst(run: Running) -> None:
    run.found.burst = await burst.measure(run.world, await run.vpc(), run.options.sizes.burst)


async def _churn(run: Running) -> None:
    vpc, sizes = await run.vpc(), run.options.sizes
    run.say(0.0, f"{sizes.churn_rate:g} changes/s")
    found = await churn.measure(run.world, vpc, sizes.churn_rate, sizes.churn_s)
    run.found.churn = found
    await run.world.tenant.until_settled(_SETTLE_S)
    if found.behind:
        rate, seconds = found.rate_per_s * _AT_EASE, min(sizes.churn_s, _AT_EASE_S)
        run.say(0.7, f"{rate:.0f} changes/s")
        run.found.churn_at_ease = await churn.measure(run.world, vpc, rate, seconds)
        await run.world.tenant.until_settled(_SETTLE_S)


async def _learning(run: Running) -> None:
    vpc, sizes = await run.vpc(), run.options.sizes
    run.found.learning = await learning.measure(
        run.world, vpc, sizes.learning_hosts, sizes.mean_peers, sizes.learning_s
    )
    run.found.host_state_saved = learning.state_saved(run.found.learning)


async def _reconcile(run: Running) -> None:
    vpc, sizes = await run.vpc(), run.options.sizes
    run.found.reconcile = await reconcile.measure(
        run.world, vpc, sizes.reconcile_entries, sizes.reconcile_s
    )


async def _faults(run: Running) -> None:
    vpc, sizes = await run.vpc(), run.options.sizes
    run.found.faults = {}
    for number, name in enumerate(faults.FAULTS):
        run.say(number / len(faults.FAULTS), name)
        run.found.faults[name] = found = await faults.measure(
            run.world, vpc, name, sizes.fault_rate, sizes.fault_s
        )
        if found.wrong:
            run.found.run.failures.append(f"{name}: {found.wrong} are wrong after a minute")


async def _services(run: Running) -> None:
    vpc, sizes = await run.vpc(), run.options.sizes
    run.found.controller = await controllers.measure(run.world, vpc, sizes.single_s)
    run.found.gateway = await services.gateway(run.world, vpc, sizes.burst, sizes.lookup_s)


SCENARIOS: Final[dict[str, Callable[[Running], Awaitable[None]]]] = {
    "programming-time": _programming_time,
    "burst": _burst,
    "churn": _churn,
    "services": _services,
    "reconcile": _reconcile,
    "learning": _learning,
    "faults": _faults,
    "ahead": _ahead,
}
"""In the order of a full run."""

_APART: Final = "ahead"
"""On a platform of its own, so that its routes and hosts weigh on nothing else."""


def main(options: Options) -> int:
    """Run; 0: all came out, 1: something did not, 128 and the number of the signal that ended it:
    SIGINT or SIGTERM. The figures that there are are written."""
    logging.basicConfig(level=logging.ERROR)
    os.environ.setdefault("ACHELOUS_BPF_DIR", str(_BUILT))
    gc.set_threshold(*_GC)
    console = Console(stderr=True, highlight=False)
    found = results.Results(run=_run_facts(options))
    begun = time.monotonic()
    told: list[signal.Signals] = []
    try:
        uvloop.run(_run_until_told(options, found, console, told))
    except (*EXPECTED, ProcessFailed, ExceptionGroup) as error:
        leaves = _leaves(error)
        for leaf in leaves:
            if not isinstance(leaf, (*EXPECTED, ProcessFailed)):
                raise leaf from None  # without the groups of all the hosts around it
        found.run.failures += [f"the run broke: {leaf}" for leaf in leaves]
    finally:
        found.run.failures += [f"the run was cut short by {by.name}" for by in told]
        found.run.seconds = round(time.monotonic() - begun, 1)
        _write(options, found)
    _summarise(found, console)
    if told:
        return _BY_SIGNAL + told[0]
    return 1 if found.run.failures else 0


def _write(options: Options, found: results.Results) -> None:
    if options.json:
        options.json.write_bytes(results.encode(found) + b"\n")
    if options.html:
        options.html.write_text(page.render(found))


def _summarise(found: results.Results, console: Console) -> None:
    for target in targets(found):
        held = "held  " if target.held else "missed"
        console.print(
            f"{held} {target.name}: {target.reached} ({target.wanted})",
            markup=False,
            soft_wrap=True,
        )
    for failure in found.run.failures:
        console.print(f"Not measured: {failure}", markup=False, soft_wrap=True)


async def _run_until_told(
    options: Options, found: results.Results, console: Console, told: list[signal.Signals]
) -> None:
    """`_run`, all of which is taken down at the first SIGINT or SIGTERM; ``told`` has it then."""
    loop = asyncio.get_running_loop()
    run = loop.create_task(_run(options, found, console))

    def end(by: signal.Signals) -> None:
        if not told:  # another one would cut the taking down short
            told.append(by)
            run.cancel()

    for by in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(by, end, by)
    try:
        await run
    except asyncio.CancelledError:
        if not told:
            raise


async def _run(options: Options, found: results.Results, console: Console) -> None:
    begun = time.monotonic()
    with Progress(
        TextColumn("{task.description:<18}"), BarColumn(), TextColumn("{task.fields[doing]}"),
        TimeElapsedColumn(), console=console, disable=not console.is_terminal,
    ) as bars:  # fmt: skip
        tasks = {
            name: bars.add_task(name, total=1.0, doing="", start=False)
            for name in options.scenarios
        }

        async def run_all(made: World, names: Sequence[str]) -> None:
            vpcs: dict[str, Vpc] = {}
            for name in names:
                gc.collect()
                gc.freeze()  # what is there stays, and shall stop nobody while it is measured
                run = Running(options, made, found, _sayer(bars, tasks[name]), vpcs)
                bars.start_task(tasks[name])
                try:
                    await SCENARIOS[name](run)
                except EXPECTED as error:
                    found.run.failures.append(f"{name}: {error}")
                except asyncio.CancelledError:
                    found.run.failures.append(f"{name}: it had not ended")
                    raise
                bars.update(tasks[name], completed=1.0, doing="")
                if not console.is_terminal:
                    console.print(f"{name}: done after {time.monotonic() - begun:.0f} s")

        if together := [name for name in options.scenarios if name != _APART]:
            async with world(options) as made:
                await run_all(made, together)
                made.usage.sample()
                found.services = made.usage.services
        if _APART in options.scenarios:
            sizes = options.sizes
            few = msgspec.structs.replace(sizes, hosts=sizes.ahead_hosts)
            async with world(
                replace(options, sizes=few), max_preprogrammed=sizes.vpc[-1] + _SPARE_ROUTES
            ) as made:
                await run_all(made, [_APART])


def _sayer(bars: Progress, task: TaskID) -> Callable[[float, str], None]:
    """Progress as a bar or, where nobody watches, as lines."""

    def say(part: float, doing: str) -> None:
        bars.update(task, completed=part, doing=doing)
        if not bars.console.is_terminal:
            bars.console.print(f"{bars.tasks[task].description}: {doing}", markup=False)

    return say


def _run_facts(options: Options) -> results.Run:
    return results.Run(
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        cpus=len(os.sched_getaffinity(0)),
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        load_1m=os.getloadavg()[0],
        attached=options.attach is not None,
    )


def _leaves(error: Exception) -> list[Exception]:
    if not isinstance(error, ExceptionGroup):
        return [error]
    return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
