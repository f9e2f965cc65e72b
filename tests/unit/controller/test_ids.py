"""Ids of objects."""

import itertools
import time
from uuid import UUID

import pytest

from achelous_controller.domain.ids import new_id, new_ids, texts


def test_many_ids_ascend_and_are_of_version_7() -> None:
    ids = [UUID(bytes=each.tobytes()) for each in new_ids(50_000)]

    assert all(left < right for left, right in itertools.pairwise(ids))
    assert {(each.version, each.variant) for each in (ids[0], ids[-1])} == {
        (7, new_id().variant),
    }
    assert abs((ids[-1].int >> 80) / 1000 - time.time()) < 10


@pytest.mark.parametrize("count", [1, 3])
def test_they_are_written_as_python_writes_them(count: int) -> None:
    ids = new_ids(count)

    assert texts(ids) == [str(UUID(bytes=each.tobytes())) for each in ids]
