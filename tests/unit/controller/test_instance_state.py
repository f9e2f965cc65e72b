"""The life of an instance."""

from achelous_controller.domain.instance_state import TRANSITIONS, InstanceState, may_become


def test_every_state_but_the_last_can_be_left_and_all_can_be_deleted() -> None:
    assert set(TRANSITIONS) == set(InstanceState)
    assert may_become(InstanceState.DELETING) == set(InstanceState) - {InstanceState.DELETING}
    assert TRANSITIONS[InstanceState.DELETING] == frozenset()


def test_an_error_ends_when_the_instance_converges() -> None:
    assert InstanceState.ACTIVE in TRANSITIONS[InstanceState.ERROR]


def test_whatever_is_not_leaving_can_be_moved_and_builds_then() -> None:
    assert may_become(InstanceState.BUILDING) == set(InstanceState) - {InstanceState.DELETING}
