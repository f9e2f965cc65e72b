"""When the number of an identity that was given up may be given again."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from reports_world import VNI, ReportsWorld

from achelous_controller.programming.retired import Batch, Look, hosts_behind, routes_are_there

BATCH = Batch(uuid4(), datetime.now(UTC), VNI, 3)


@pytest.fixture
def world() -> ReportsWorld:
    return ReportsWorld()


def behind(world: ReportsWorld) -> bool:
    return bool(hosts_behind(Look([BATCH], {world.host: 5}), world.fleet, world.reports))


def test_a_host_has_to_report_its_document(world: ReportsWorld) -> None:
    assert behind(world)
    world.host_runs(4)
    assert behind(world)
    world.host_runs(6)
    assert not behind(world)
    world.wait(100)
    assert not behind(world)  # what it ran once it does not forget by being silent


def test_a_vnic_that_failed_may_run_by_older_rules(world: ReportsWorld) -> None:
    world.host_runs(5, failed={uuid4(): "no room for its rules"})
    assert behind(world)
    world.host_runs(5, waiting=(uuid4(),))
    assert not behind(world)


def test_a_host_that_was_removed_is_nobody(world: ReportsWorld) -> None:
    del world.fleet.hosts[world.host]
    assert not behind(world)


def test_all_gateways_of_the_vpc_have_to_report_its_routes(world: ReportsWorld) -> None:
    assert not routes_are_there(BATCH, world.fleet, world.reports)
    world.gateway_has(world.g1, {VNI: 3})
    world.gateway_has(world.g2, {VNI: 2})
    assert not routes_are_there(BATCH, world.fleet, world.reports)
    world.fleet.shards[world.g2] = frozenset({VNI + 1})
    assert routes_are_there(BATCH, world.fleet, world.reports)
    del world.fleet.shards[world.g2]
    world.gateways_have(4)
    assert routes_are_there(BATCH, world.fleet, world.reports)


def test_hosts_that_hold_all_routes_have_to_report_them(world: ReportsWorld) -> None:
    world.gateways_have(3)
    world.host_runs(5, routes={VNI: 2})
    assert not routes_are_there(BATCH, world.fleet, world.reports)
    world.host_runs(5, routes={VNI: 3})
    assert routes_are_there(BATCH, world.fleet, world.reports)
