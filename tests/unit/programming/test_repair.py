"""What is sent again because it may have been lost, and how often."""

from itertools import pairwise
from uuid import UUID, uuid4

import pytest
from reports_world import VNI, ReportsWorld

from achelous_controller.programming.plan import Observed, plan
from achelous_controller.programming.repair import (
    FIRST_S,
    LIMIT_S,
    Backoff,
    announcements,
    stale_documents,
    untold,
)


@pytest.fixture
def world() -> ReportsWorld:
    world = ReportsWorld()
    world.wait(5)
    world.gateways_have(3)
    world.host_runs(5)
    return world


class TestBackoff:
    def test_what_is_wrong_for_long_is_tried_ever_more_rarely(self) -> None:
        backoff: Backoff[str] = Backoff()
        tried = [now for now in range(120) if backoff.due(["it"], float(now))]
        gaps = [later - earlier for earlier, later in pairwise(tried)]
        assert tried[0] == FIRST_S
        assert gaps[:3] == [4, 8, 16]
        assert set(gaps[3:]) == {LIMIT_S}

    def test_what_was_right_in_between_starts_afresh(self) -> None:
        backoff: Backoff[str] = Backoff()
        for now in range(20):
            backoff.due(["it"], float(now))
        backoff.due([], 20.0)
        assert [now for now in range(21, 28) if backoff.due(["it"], float(now))] == [23, 27]

    def test_each_thing_has_a_time_of_its_own(self) -> None:
        backoff: Backoff[str] = Backoff()
        backoff.due(["one"], 0.0)
        assert backoff.due(["one", "other"], 2.0) == ["one"]
        assert backoff.due(["one", "other"], 4.0) == ["other"]


class TestAnnouncements:
    def test_of_what_gateways_lack_a_second_after_it_was_published(
        self, world: ReportsWorld
    ) -> None:
        instances = [world.pending(routes={VNI: 4, 8: 1}), world.pending(routes={VNI: 6})]
        assert announcements(instances, (), world.now + 0.9) == {}
        assert announcements(instances, (), world.now + 1) == {VNI: 6, 8: 1}

    def test_not_of_what_was_not_published(self, world: ReportsWorld) -> None:
        assert announcements([world.pending(published=False)], (), world.now + 9) == {}

    def test_not_of_what_waits_for_its_host_only(self, world: ReportsWorld) -> None:
        instance = world.pending(routes={VNI: 3})
        plan([instance], Observed(world.fleet, world.reports, world.now), 60)
        assert announcements([instance], (), world.now + 9) == {}

    def test_but_of_what_hosts_that_follow_the_vpc_lack(self, world: ReportsWorld) -> None:
        world.gateways_have(3)
        world.host_runs(5, routes={VNI: 2})
        instance = world.pending(routes={VNI: 3, 8: 1})
        plan([instance], Observed(world.fleet, world.reports, world.now), 60)
        instance.gateways_applied_at = world.now
        followed = world.reports.followers
        assert announcements([instance], followed, world.now + 9) == {VNI: 3}
        instance.host_applied_at = world.now
        assert announcements([instance], followed, world.now + 9) == {}


class TestDocuments:
    def stale(self, world: ReportsWorld) -> list[UUID | None]:
        return stale_documents(world.fleet, world.reports, world.now)

    def test_a_host_that_runs_its_document_needs_none(self, world: ReportsWorld) -> None:
        assert self.stale(world) == []

    def test_one_with_an_older_document_needs_its_own(self, world: ReportsWorld) -> None:
        world.host_runs(4)
        assert self.stale(world) == [world.host]

    def test_one_with_an_older_fleet_needs_the_fleet_s(self, world: ReportsWorld) -> None:
        world.host_runs(5, fleet=1)
        assert self.stale(world) == [None]

    def test_a_silent_one_needs_nothing(self, world: ReportsWorld) -> None:
        world.host_runs(4, fleet=1)
        world.now += 4
        assert self.stale(world) == []

    def test_a_stranger_is_not_told_anything(self, world: ReportsWorld) -> None:
        world.host_runs(4, fleet=1)
        world.fleet.hosts.clear()
        assert self.stale(world) == []


class TestUntold:
    def test_nothing_is_asked_while_all_is_well(self, world: ReportsWorld) -> None:
        assert not untold(world.fleet, world.reports, [world.pending()], world.now)

    def test_a_gateway_that_never_told_all_is_asked(self, world: ReportsWorld) -> None:
        g3 = uuid4()
        world.gateway_has(g3, {VNI: 3}, full=False)
        assert not untold(world.fleet, world.reports, [], world.now)  # a stranger
        world.fleet.gateways[g3] = "g3"
        assert untold(world.fleet, world.reports, [], world.now)

    def test_all_are_asked_when_something_waits_for_long(self, world: ReportsWorld) -> None:
        instances = [world.pending(published=False), world.pending()]
        assert not untold(world.fleet, world.reports, instances, world.now + FIRST_S)
        assert untold(world.fleet, world.reports, instances, world.now + FIRST_S + 0.1)
        assert not untold(world.fleet, world.reports, instances[:1], world.now + 9)
