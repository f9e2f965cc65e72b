"""If-Match."""

import pytest

from achelous_controller.domain.errors import PreconditionFailed
from achelous_controller.domain.precondition import Precondition


@pytest.mark.parametrize("header", [None, "*", '"3"', '"1", "3"', ' "3" '])
def test_a_tag_of_the_version_lets_the_change_through(header: str | None) -> None:
    Precondition.parse(header).check(3)


@pytest.mark.parametrize("header", ['"2"', 'W/"3"', "3", "", '"33"'])
def test_any_other_tag_stops_it(header: str) -> None:
    with pytest.raises(PreconditionFailed, match='"3"'):
        Precondition.parse(header).check(3)
