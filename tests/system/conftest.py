"""What a gateway hears, a tenant's network; a failed test's logs go to build/test-logs/<test>/."""

import re
import shutil
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest
from gateway_world import FakeController, controller_in
from platform_world import Net

from achelous_lab.platform import Lab
from achelous_lab.rundir import RunDir

LOGS = Path(__file__).parents[2] / "build/test-logs"
_TAIL_LINES = 15


@pytest.fixture
async def controller(run_dir: RunDir) -> AsyncIterator[FakeController]:
    """What a gateway hears and asks, played by the test."""
    async with controller_in(run_dir) as controller:
        yield controller


@pytest.fixture
async def net(lab: Lab, request: pytest.FixtureRequest) -> Net:
    """A tenant's network on the lab of the test's module, nothing in it yet.

    Its routes are learned, or as the parameter says (`platform_world.in_both_models`).
    """
    return await Net.create(lab, programming_model=getattr(request, "param", "alm"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for run_dir in _run_dirs(item):
            kept = LOGS / re.sub(r"[^\w.-]+", "_", item.nodeid)
            report.sections += [(f"logs, whole in {kept}", _keep(run_dir, kept))]
    return report


def _run_dirs(item: pytest.Function) -> set[RunDir]:
    """Of the fixtures that the test used."""
    used = [getattr(value, "run_dir", value) for value in item.funcargs.values()]
    return {value for value in used if isinstance(value, RunDir)}


def _keep(run_dir: RunDir, directory: Path) -> str:
    """Copy the logs, which go with the run directory; returns their last lines."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    tails = []
    for log in sorted(run_dir.path.glob("*/*.log")):
        shutil.copy(log, directory)
        lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        if lines:
            tails += [f"== {log.name}", *lines]
    return "\n".join(tails)
