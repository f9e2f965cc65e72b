"""What had no route is not asked for again for a while, unless it may have one by now."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from achelous_vswitch.negatives import Negatives
from achelous_vswitch.views import Views

VNI = 9


@pytest.fixture
def views() -> Views:
    return Views()


@pytest.fixture
def negatives(views: Views) -> Negatives:
    """Destinations 1 and 2, without a route as of revision 5."""
    negatives = Negatives(views, keep_s=1.0)
    negatives.add(VNI, 1, as_of=5, now=10.0)
    negatives.add(VNI, 2, as_of=5, now=10.5)
    return negatives


def test_it_holds_for_a_while(negatives: Negatives) -> None:
    assert negatives.holds(VNI, 1, now=10.9)
    assert not negatives.holds(VNI, 1, now=11.0)
    assert not negatives.holds(VNI + 1, 1, now=10.9)
    negatives.expire(now=11.0)
    assert len(negatives) == 1


def test_its_vpc_is_watched_while_there_is_one(negatives: Negatives, views: Views) -> None:
    assert views.begin([VNI]) == {VNI: 5}
    negatives.expire(now=12.0)
    assert list(views) == []


def test_what_changed_is_not_denied_any_more(negatives: Negatives) -> None:
    negatives.changed(VNI, np.array([2, 7], np.uint32))
    assert not negatives.holds(VNI, 2, now=10.6)
    assert negatives.holds(VNI, 1, now=10.6)
    negatives.forget_vpc(VNI)
    assert len(negatives) == 0


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3)), max_size=60))
def test_they_are_bounded_and_never_hold_what_was_not_added(steps: list[tuple[int, int]]) -> None:
    views = Views()
    negatives, now, until = Negatives(views, keep_s=5.0, limit=4), 0.0, dict[int, float]()
    for value, pause in steps:
        now += pause
        assert not negatives.holds(VNI, value, now) or until[value] > now
        negatives.add(VNI, value, 1, now)
        until[value] = now + 5.0
        assert negatives.holds(VNI, value, now)
        view = views.get(VNI)
        assert view is not None
        assert view.entries == len(negatives) <= 4
