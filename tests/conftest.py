"""Fixtures of all tests: a run directory, and skipping what this machine cannot run."""

import os
import subprocess
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from turns import Turns

from achelous_lab.netns.network import Network
from achelous_lab.rundir import RunDir
from achelous_lab.sweep import sweep_stale
from achelous_shared.bpf import missing_for_ebpf

ROOT = Path(__file__).parents[1]
os.environ.setdefault("ACHELOUS_BPF_DIR", str(ROOT / "build/bpf"))

# how long an example takes is up to what else runs
settings.register_profile("beside", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("beside")


def pytest_sessionstart() -> None:
    """Remove what an earlier run has left that was killed."""
    sweep_stale()


@pytest.hookimpl(wrapper=True, tryfirst=True)  # what a test waits for its turn is not its time
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if not hasattr(item.config, "workerinput"):  # nobody runs beside it
        return (yield)
    of_this_run = Path(item.config.option.basetemp).parent
    with Turns(of_this_run).turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("kernel") is None:
        return
    if os.geteuid() != 0:
        pytest.skip("needs root for network namespaces and eBPF")
    if not Path("/sys/kernel/btf/vmlinux").exists():
        pytest.skip("needs a kernel with BTF (/sys/kernel/btf/vmlinux)")


@pytest.fixture
def run_dir() -> Iterator[RunDir]:
    """A lab's run directory, removed afterwards."""
    with RunDir.create() as directory:
        yield directory


@pytest.fixture
async def network(run_dir: RunDir) -> AsyncIterator[Network]:
    """Namespaces for nodes and guests, all removed afterwards."""
    async with Network(run_dir) as network:
        yield network


def make_once(target: str) -> None:
    """Make it while no other process of this run does."""
    command = ["flock", "Makefile", "make", "--silent", target]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)


@pytest.fixture(scope="session")
def objects() -> Path:
    """The folder of the objects, compiled from the sources as they are now."""
    if missing := missing_for_ebpf():
        pytest.skip("; ".join(missing))
    make_once("bpf")
    return ROOT / "build/bpf"
