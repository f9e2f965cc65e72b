"""What becomes of pending instances, by what gateways and hosts report."""

from uuid import UUID, uuid4

import pytest
from reports_world import VNI, ReportsWorld

from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.programming.fleet import Host
from achelous_controller.programming.pending import Pending
from achelous_controller.programming.plan import Observed, Plan, apart, plan
from achelous_shared.names import port_ifname

BUILDING, ERROR, DELETING = InstanceState.BUILDING, InstanceState.ERROR, InstanceState.DELETING
TIMEOUT_S = 10


@pytest.fixture
def world() -> ReportsWorld:
    """Where all who live were heard: there was time enough."""
    world = ReportsWorld()
    world.wait(5)
    return world


def look(world: ReportsWorld, *pending: Pending) -> Plan:
    observed = Observed(world.fleet, world.reports, world.now)
    parts = [part for some in pending for part in apart(some, observed, TIMEOUT_S)]
    return plan(parts, observed, TIMEOUT_S)


def reason(world: ReportsWorld, instance: Pending) -> str:
    """What an instance is said to wait for, when it is late; time for that has passed."""
    [(late, text)] = look(world, instance).overdue
    assert late is instance
    return text


def outcome(made: Plan) -> str:
    lists = {"active": made.active, "gone": made.gone, "overdue": made.overdue}
    found = [name for name, some in lists.items() if some]
    return found[0] if found else "waits"


@pytest.mark.parametrize(
    ("state", "gateways", "host", "late", "expected"),
    [
        (BUILDING, 3, 5, False, "active"),
        (BUILDING, 4, 6, False, "active"),
        (BUILDING, 2, 5, False, "waits"),
        (BUILDING, 3, 4, False, "waits"),
        (BUILDING, 3, 5, True, "active"),
        (BUILDING, 2, 5, True, "overdue"),
        (BUILDING, 3, 4, True, "overdue"),
        (ERROR, 3, 5, True, "active"),
        (ERROR, 2, 5, True, "overdue"),
        (ERROR, 2, 5, False, "waits"),
        (DELETING, 3, 5, False, "gone"),
        (DELETING, 2, 5, False, "waits"),
        (DELETING, 3, 4, False, "waits"),
        (DELETING, 3, 4, True, "overdue"),
    ],
)
def test_the_state_table(
    world: ReportsWorld, state: InstanceState, gateways: int, host: int, late: bool, expected: str
) -> None:
    instance = world.pending(state)
    world.wait(TIMEOUT_S + 1 if late else 1)
    world.gateways_have(gateways)
    world.host_runs(host)
    assert outcome(look(world, instance)) == expected


class TestGateways:
    def test_every_live_one_must_have_the_routes(self, world: ReportsWorld) -> None:
        world.host_runs(5)
        world.gateway_has(world.g1, {VNI: 3})
        world.gateway_has(world.g2, {VNI: 2})
        assert outcome(look(world, world.pending())) == "waits"

    def test_of_all_vpcs_of_the_instance(self, world: ReportsWorld) -> None:
        world.host_runs(5)
        world.gateways_have(3)
        instance = world.pending(routes={VNI: 3, 8: 1})
        assert outcome(look(world, instance)) == "waits"
        for gateway in (world.g1, world.g2):
            world.gateway_has(gateway, {VNI: 3, 8: 1})
        assert outcome(look(world, instance)) == "active"

    @pytest.mark.parametrize(("state", "end"), [(BUILDING, "active"), (DELETING, "gone")])
    def test_a_silent_one_is_not_waited_for(
        self, world: ReportsWorld, state: InstanceState, end: str
    ) -> None:
        world.gateways_have(2)
        world.wait(4)
        world.gateway_has(world.g1, {VNI: 3})
        world.host_runs(5)
        assert outcome(look(world, world.pending(state))) == end

    def test_one_that_may_live_is_waited_for(self) -> None:
        """A new leader has not heard everybody in its first seconds."""
        world = ReportsWorld()
        world.wait(1)
        world.gateway_has(world.g1, {VNI: 3})
        world.host_runs(5)
        assert outcome(look(world, world.pending())) == "waits"
        world.wait(4)
        world.gateway_has(world.g1, {VNI: 3})
        world.host_runs(5)
        assert outcome(look(world, world.pending())) == "active"

    def test_after_a_silence_of_all_everybody_is_waited_for_again(
        self, world: ReportsWorld
    ) -> None:
        world.gateways_have(2)
        world.now += 30  # the bus was down
        world.gateway_has(world.g1, {VNI: 3})
        world.host_runs(5)
        assert outcome(look(world, world.pending())) == "waits"

    def test_without_a_live_one_nothing_is_active_and_nothing_goes(
        self, world: ReportsWorld
    ) -> None:
        world.host_runs(5)
        assert outcome(look(world, world.pending(), world.pending(DELETING))) == "waits"

    def test_without_a_registered_one_nobody_holds_the_routes_of_what_goes(
        self, world: ReportsWorld
    ) -> None:
        world.fleet.gateways.clear()
        world.host_runs(5)
        made = look(world, world.pending(), gone := world.pending(DELETING))
        assert (made.gone, made.active) == ([gone], [])


class TestHost:
    def test_every_vnic_must_be_up(self, world: ReportsWorld) -> None:
        instance = world.pending(routes={VNI: 3, 8: 1})
        for gateway in (world.g1, world.g2):
            world.gateway_has(gateway, {VNI: 3, 8: 1})
        world.host_runs(5, waiting=(instance.vnics()[1],))
        assert outcome(look(world, instance)) == "waits"
        world.host_runs(5, failed={instance.vnics()[0]: "no room"})
        assert outcome(look(world, instance)) == "waits"
        world.host_runs(5)
        assert outcome(look(world, instance)) == "active"

    def test_what_goes_need_not_have_been_up(self, world: ReportsWorld) -> None:
        instance = world.pending(DELETING)
        world.gateways_have(3)
        world.host_runs(5, waiting=(instance.vnics()[0],))
        assert outcome(look(world, instance)) == "gone"

    def test_a_silent_one_runs_nothing_for_sure(self, world: ReportsWorld) -> None:
        world.host_runs(5)
        world.wait(4)
        world.gateways_have(3)
        assert outcome(look(world, world.pending(), world.pending(DELETING))) == "waits"


class TestCohorts:
    """Instances that wait together go together, but for those that their host names."""

    @pytest.fixture
    def cohort(self, world: ReportsWorld) -> Pending:
        """Of ten instances with two vNICs each, that gateways have."""
        for gateway in (world.g1, world.g2):
            world.gateway_has(gateway, {VNI: 3, 8: 1})
        return world.pending(routes={VNI: 3, 8: 1}, size=10)

    def test_they_are_one_while_nothing_parts_them(
        self, world: ReportsWorld, cohort: Pending
    ) -> None:
        world.host_runs(5)
        assert look(world, cohort).active == [cohort]

    def test_who_is_named_waits_and_the_rest_goes(
        self, world: ReportsWorld, cohort: Pending
    ) -> None:
        ids, vnics = cohort.instances(), cohort.vnics()
        world.host_runs(5, waiting=(vnics[4], uuid4()), failed={vnics[19]: "no room"})

        (rest,) = look(world, cohort).active

        assert rest.instances() == [one for n, one in enumerate(ids) if n not in (2, 9)]
        assert rest.vnics() == [one for n, one in enumerate(vnics) if n // 2 not in (2, 9)]

    def test_who_leaves_is_not_parted(self, world: ReportsWorld) -> None:
        world.gateways_have(3)
        leaving = world.pending(DELETING, size=3)
        world.host_runs(5, waiting=(leaving.vnics()[0],))
        assert look(world, leaving).gone == [leaving]

    def test_nobody_is_parted_by_a_report_of_before(
        self, world: ReportsWorld, cohort: Pending
    ) -> None:
        world.host_runs(4, waiting=(cohort.vnics()[0],))
        assert apart(cohort, Observed(world.fleet, world.reports, world.now), TIMEOUT_S) == [cohort]

    def test_who_is_late_is_told_of_its_own_vnic(
        self, world: ReportsWorld, cohort: Pending
    ) -> None:
        ids, vnics = cohort.instances(), cohort.vnics()
        world.wait(TIMEOUT_S + 1)
        for gateway in (world.g1, world.g2):
            world.gateway_has(gateway, {VNI: 3, 8: 1})
        world.host_runs(5, waiting=(vnics[0], vnics[2]), failed={vnics[5]: "no room"})

        made = look(world, cohort)

        told = {late.instances()[0]: (len(late), text) for late, text in made.overdue}
        assert sum(map(len, made.active)) == 7
        assert told == {
            instance: (1, next(text for _, text in made.overdue if str(vnic) in text))
            for instance, vnic in zip(ids[:3], (vnics[0], vnics[2], vnics[5]), strict=True)
        }

    def test_who_waits_for_its_host_is_told_together(
        self, world: ReportsWorld, cohort: Pending
    ) -> None:
        world.wait(TIMEOUT_S + 1)
        world.host_runs(4)
        assert look(world, cohort).overdue == [(cohort, "host h1 does not run revision 5 yet")]


class TestStages:
    def test_they_keep_the_time_when_they_were_first_done(self, world: ReportsWorld) -> None:
        instance = world.pending()
        world.gateways_have(3)
        look(world, instance)
        done_at = world.now
        world.wait(1)
        world.gateways_have(4)
        world.host_runs(5)
        look(world, instance)
        assert instance.gateways_applied_at == done_at
        assert instance.host_applied_at == world.now

    def test_one_that_is_undone_starts_again(self, world: ReportsWorld) -> None:
        instance = world.pending()
        world.gateways_have(3)
        look(world, instance)
        world.gateway_has(world.g1, {})  # it restarted
        look(world, instance)
        assert instance.gateways_applied_at is None


class TestReasons:
    def late(self, world: ReportsWorld, state: InstanceState = BUILDING) -> Pending:
        instance = world.pending(state)
        world.wait(TIMEOUT_S + 1)
        return instance

    def test_a_silent_host(self, world: ReportsWorld) -> None:
        assert "host h1 is silent" in reason(world, self.late(world))

    def test_an_old_document(self, world: ReportsWorld) -> None:
        instance = self.late(world)
        world.host_runs(4)
        assert reason(world, instance) == "host h1 does not run revision 5 yet"

    def test_a_device_that_has_not_appeared(self, world: ReportsWorld) -> None:
        instance = self.late(world)
        vnic = instance.vnics()[0]
        world.host_runs(5, waiting=(vnic,))
        text = reason(world, instance)
        assert text == f"device {port_ifname(vnic)} of vNIC {vnic} has not appeared on host h1"

    def test_a_failed_vnic_says_why(self, world: ReportsWorld) -> None:
        instance = self.late(world)
        vnic = instance.vnics()[0]
        world.host_runs(5, failed={vnic: "too many rules"})
        assert reason(world, instance) == f"vNIC {vnic} on host h1: too many rules"

    def test_gateways_that_are_behind(self, world: ReportsWorld) -> None:
        instance = self.late(world)
        world.host_runs(5)
        world.gateway_has(world.g1, {VNI: 3})
        world.gateway_has(world.g2, {VNI: 2})
        assert reason(world, instance) == "gateway g2 is behind"
        world.gateway_has(world.g1, {})
        assert reason(world, instance) == "gateways g1, g2 are behind"

    def test_no_live_gateway(self, world: ReportsWorld) -> None:
        instance = self.late(world)
        world.host_runs(5)
        assert "no gateway is live" in reason(world, instance)

    def test_a_host_that_is_not_known_yet_is_named_by_its_id(self, world: ReportsWorld) -> None:
        instance = self.late(world)
        world.fleet.hosts.clear()
        assert str(world.host) in reason(world, instance)

    def test_it_is_said_once_and_again_when_it_changes(self, world: ReportsWorld) -> None:
        instance = self.late(world, ERROR)
        instance.reason = reason(world, instance)
        world.wait(2)
        assert look(world, instance).overdue == []
        world.host_runs(4)
        assert "does not run" in reason(world, instance)

    def test_nobody_is_blamed_who_could_not_be_heard_yet(self) -> None:
        """As when the controllers were away for longer than instances may take."""
        world = ReportsWorld()
        instance = world.pending()
        world.now += 600
        world.gateway_has(world.g1, {VNI: 3})
        assert outcome(look(world, instance)) == "waits"


class TestPreprogrammed:
    """A VPC is one for the hosts that say to follow it."""

    @pytest.fixture
    def other(self, world: ReportsWorld) -> UUID:
        """Another host of the fleet."""
        host = uuid4()
        world.fleet.hosts[host] = Host("h2", 1)
        world.gateways_have(3)
        return host

    def test_every_live_host_that_follows_it_must_have_the_routes(
        self, world: ReportsWorld, other: UUID
    ) -> None:
        world.host_runs(5, routes={VNI: 3})
        world.host_runs(1, routes={VNI: 2}, host=other)
        assert outcome(look(world, world.pending())) == "waits"
        assert outcome(look(world, world.pending(DELETING))) == "waits"
        world.host_runs(1, routes={VNI: 3}, host=other)
        assert outcome(look(world, world.pending())) == "active"
        assert outcome(look(world, world.pending(DELETING))) == "gone"

    def test_its_own_host_too(self, world: ReportsWorld) -> None:
        world.gateways_have(3)
        world.host_runs(5, routes={VNI: 0})
        assert outcome(look(world, world.pending())) == "waits"

    def test_other_vpcs_of_a_host_do_not_matter(self, world: ReportsWorld, other: UUID) -> None:
        world.host_runs(5, routes={VNI: 3})
        world.host_runs(1, routes={8: 0}, host=other)
        assert outcome(look(world, world.pending())) == "active"

    def test_a_dead_host_holds_nobody_up(self, world: ReportsWorld, other: UUID) -> None:
        world.host_runs(1, routes={VNI: 2}, host=other)
        world.wait(4)
        world.gateways_have(3)
        world.host_runs(5, routes={VNI: 3})
        assert outcome(look(world, world.pending())) == "active"

    def test_who_may_live_and_was_not_heard_yet_is_waited_for(self) -> None:
        world = ReportsWorld()
        world.fleet.hosts[uuid4()] = Host("h2", 1)
        world.gateways_have(3)
        world.host_runs(5, routes={VNI: 3})
        assert outcome(look(world, world.pending())) == "waits"
        world.wait(4)
        world.gateways_have(3)
        world.host_runs(5, routes={VNI: 3})
        assert outcome(look(world, world.pending())) == "active"

    def test_the_reason_names_who_lacks_them(self, world: ReportsWorld, other: UUID) -> None:
        instance = world.pending()
        world.wait(TIMEOUT_S + 1)
        world.gateways_have(3)
        world.host_runs(5, routes={VNI: 3})
        world.host_runs(1, routes={VNI: 2}, host=other)
        assert reason(world, instance) == "hosts that lack routes of its preprogrammed VPC: h2"
