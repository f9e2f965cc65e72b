"""What the leader remembers of reports, and what of them is news."""

from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports_world import VNI, ReportsWorld, gateway_applied, host_applied

from achelous_controller.programming.reports import Moved
from achelous_shared.messages import BadMessage, GatewayApplied

revisions = st.dictionaries(st.integers(1, 5), st.integers(0, 9))


class TestGateways:
    @given(st.lists(st.tuples(revisions, st.booleans()), max_size=8))
    def test_a_full_report_replaces_and_a_partial_one_adds(
        self, told: list[tuple[dict[int, int], bool]]
    ) -> None:
        world = ReportsWorld()
        model: dict[int, int] = {}
        for some, full in told:
            before = dict(model)
            model = dict(some) if full else model | some
            world.reports.take_moved()
            news = world.gateway_has(world.g1, some, full=full)
            moved = {v for v in before.keys() | model if before.get(v) != model.get(v)}
            assert world.reports.take_moved() == Moved(vnis=moved)
            assert news == bool(moved)
        if told:
            report = world.reports.gateways[world.g1]
            assert report.revisions == model
            assert report.full == any(full for _, full in told)

    def test_a_revision_may_go_back(self) -> None:
        """A gateway that restarted begins again."""
        world = ReportsWorld()
        world.gateways_have(9)
        world.gateway_has(world.g1, {VNI: 2}, full=False)
        assert world.reports.gateways[world.g1].revisions == {VNI: 2}

    def test_broken_revisions_change_nothing(self) -> None:
        world = ReportsWorld()
        world.gateways_have(3)
        world.reports.take_moved()
        broken = GatewayApplied(
            gateway_id=world.g1, full=True, serving=False, revisions=b"x" * 13, at=0.0
        )
        with pytest.raises(BadMessage, match="13 bytes"):
            world.reports.gateway(broken, world.now + 1)
        report = world.reports.gateways[world.g1]
        assert (report.at, report.serving, report.revisions) == (world.now, True, {VNI: 3})
        assert not world.reports.take_moved()


class TestHosts:
    def test_the_same_again_is_no_news(self) -> None:
        world = ReportsWorld()
        assert world.host_runs(5)
        world.reports.take_moved()
        world.now += 1
        assert not world.host_runs(5)
        assert not world.reports.take_moved()
        assert world.reports.hosts[world.host].at == world.now

    def test_anything_else_is(self) -> None:
        world, vnic = ReportsWorld(), uuid4()
        world.host_runs(5)
        assert world.host_runs(4)
        assert world.host_runs(4, waiting=(vnic,))
        assert world.host_runs(4, failed={vnic: "why"})
        assert world.host_runs(4, failed={vnic: "why else"})
        assert world.host_runs(4, failed={vnic: "why else"}, fleet=3)
        assert world.reports.take_moved() == Moved(hosts={world.host})

    def test_routes_that_it_follows_are_news_of_their_vpcs(self) -> None:
        world = ReportsWorld()
        world.host_runs(5, routes={VNI: 1, 8: 4})
        assert world.reports.followers == {VNI: {world.host}, 8: {world.host}}
        world.reports.take_moved()
        assert not world.host_runs(5, routes={VNI: 1, 8: 4})
        assert world.host_runs(5, routes={VNI: 2, 8: 4})
        assert world.reports.take_moved() == Moved(vnis={VNI})
        assert world.host_runs(5, routes={8: 4})
        assert world.reports.take_moved() == Moved(vnis={VNI})
        assert world.reports.followers == {8: {world.host}}

    def test_broken_revisions_change_nothing(self) -> None:
        world = ReportsWorld()
        world.host_runs(5, routes={VNI: 1})
        broken = msgspec.structs.replace(host_applied(world.host, 6), preprogrammed=b"12345")
        with pytest.raises(BadMessage):
            world.reports.host(broken, world.now)
        assert world.reports.hosts[world.host].routes == {VNI: 1}


class TestListening:
    def test_it_begins_again_after_a_silence_of_all(self) -> None:
        world = ReportsWorld()
        world.wait(10)
        began = world.reports.listening_since
        world.now += 2
        world.host_runs(5)
        assert world.reports.listening_since == world.now > began

    def test_it_goes_on_while_anybody_is_heard(self) -> None:
        world = ReportsWorld()
        world.wait(1)
        began = world.reports.listening_since
        world.wait(60)
        assert world.reports.listening_since == began

    def test_a_report_that_is_read_late_was_no_silence(self) -> None:
        world = ReportsWorld()
        world.wait(2)
        began, at = world.reports.listening_since, world.now
        world.wait(60)
        world.reports.host(host_applied(world.host, 5), at)
        world.wait(1)
        assert world.reports.listening_since == began


def test_who_is_not_registered_is_forgotten() -> None:
    world = ReportsWorld()
    world.gateways_have(3)
    world.wait(3)  # strangers
    world.host_runs(5)
    world.reports.gateway(gateway_applied(uuid4(), {}), world.now)
    stranger = uuid4()
    world.host_runs(1, routes={VNI: 1}, host=stranger)
    world.reports.keep({world.g1}, {world.host})
    assert list(world.reports.gateways) == [world.g1]
    assert list(world.reports.hosts) == [world.host]
    assert not world.reports.followers
