"""When a gateway reports what moved."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import cast
from uuid import UUID

import numpy as np
import pytest

from achelous_gateway.reporter import Reporter
from achelous_shared.bus import Bus
from achelous_shared.messages import GatewayApplied
from achelous_shared.routes import REVISION, Routes, unpack


class Reports(list[GatewayApplied]):
    """A bus that keeps what it is told."""

    async def publish(self, _: str, report: GatewayApplied) -> None:
        self.append(report)


def revisions(vnis: Iterable[int] | None) -> Routes:
    return np.array([(vni, 5) for vni in vnis or ()], REVISION)


def vnis_of(report: GatewayApplied) -> set[int]:
    return set(unpack(report.revisions, REVISION)["vni"].tolist())


async def turns() -> None:
    """What needs no timer has happened after these."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
async def reporter(reports: Reports) -> AsyncIterator[Reporter]:
    """One that has reported all and then nothing."""
    made = Reporter(UUID(int=1), cast(Bus, reports), revisions, lambda: True)
    task = asyncio.create_task(made.run())
    await turns()
    reports.clear()
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_lone_change_waits_for_no_timer(reporter: Reporter, reports: Reports) -> None:
    reporter.moved(7)
    await turns()
    assert [vnis_of(report) for report in reports] == [{7}]


async def test_what_moves_together_is_reported_together(
    reporter: Reporter, reports: Reports
) -> None:
    for vni in range(100):
        reporter.moved(vni)
    await turns()
    assert [vnis_of(report) for report in reports] == [set(range(100))]


async def test_what_moves_without_end_is_reported_some_hundred_times_a_second(
    reporter: Reporter, reports: Reports
) -> None:
    begin = asyncio.get_running_loop().time()
    for number in range(2000):
        reporter.moved(number)
        await asyncio.sleep(0)
    took = asyncio.get_running_loop().time() - begin
    assert len(reports) <= 2 + took / 0.004
