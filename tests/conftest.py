"""Fixtures of all tests: a run directory, and skipping what this machine cannot run."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from achelous_lab.rundir import RunDir


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
