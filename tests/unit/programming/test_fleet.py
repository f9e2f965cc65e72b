"""How the fleet is shown to operators."""

from uuid import uuid4

from reports_world import VNI, ReportsWorld

from achelous_controller.programming.fleet import (
    FleetStatus,
    GatewayStatus,
    Host,
    HostStatus,
    fleet_status,
)


def status(world: ReportsWorld) -> FleetStatus:
    return fleet_status(world.fleet, world.reports, world.now)


def test_who_never_reported_is_listed_all_the_same() -> None:
    world = ReportsWorld()
    found = status(world)
    assert found.revision == 2
    assert found.gateways[0] == GatewayStatus(world.g1, "g1", None, False, False, 0)
    assert found.hosts[0] == HostStatus(world.host, "h1", 5, None, False, None, None, 0, {})


def test_what_was_reported_is_shown_with_its_age() -> None:
    world, waiting, failed = ReportsWorld(), uuid4(), uuid4()
    world.gateway_has(world.g1, {VNI: 3, 8: 1})
    world.host_runs(4, waiting=(waiting,), failed={failed: "why"})
    world.wait(2)
    found = status(world)
    assert found.gateways[0] == GatewayStatus(world.g1, "g1", 2.0, True, True, 2)
    assert found.hosts[0] == HostStatus(world.host, "h1", 5, 2.0, True, 4, 2, 1, {failed: "why"})


def test_who_fell_silent_neither_lives_nor_serves() -> None:
    world = ReportsWorld()
    world.gateways_have(3)
    world.host_runs(5)
    world.wait(4)
    found = status(world)
    assert [(gateway.live, gateway.serving) for gateway in found.gateways] == [(False, False)] * 2
    assert [host.live for host in found.hosts] == [False]


def test_they_come_in_order_of_name_and_strangers_not_at_all() -> None:
    world = ReportsWorld()
    world.fleet.hosts[uuid4()] = Host("a", 1)
    world.fleet.gateways[uuid4()] = "a"
    world.wait(1)
    found = status(world)
    assert [gateway.name for gateway in found.gateways] == ["a", "g1", "g2"]
    assert [host.name for host in found.hosts] == ["a", "h1"]
