"""What sessions moved between two looks at the table."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from vswitch_memory import MemoryTable, layout

from achelous_shared.messages import FlowsRequest
from achelous_vswitch.dataplane import Array
from achelous_vswitch.flows import FlowMeter, moved

Seen = dict[int, tuple[int, int]]
"""Source port -> (created, bytes of side 0)."""


def table(seen: Seen) -> tuple[Array, Array]:
    keys = np.zeros(len(seen), layout("ach_session_key"))
    values = np.zeros(len(seen), layout("ach_session"))
    keys["port"][:, 0] = list(seen)
    values["created_ns"] = [created for created, _ in seen.values()]
    values["bytes"][:, 0] = [octets for _, octets in seen.values()]
    return keys, values


def moved_bytes(before: Seen, now: Seen) -> list[int]:
    keys, old = table(before)
    later, new = table(now)
    return [int(octets) for octets in moved(keys, old, later, new)[1][:, 0]]


def test_a_session_moved_the_difference() -> None:
    assert moved_bytes({1: (5, 100), 2: (5, 50)}, {2: (5, 80), 1: (5, 100)}) == [30, 0]


def test_a_new_session_moved_all_it_counted() -> None:
    assert moved_bytes({}, {1: (5, 100)}) == [100]


def test_one_that_began_anew_moved_all_it_counted() -> None:
    assert moved_bytes({1: (5, 100)}, {1: (9, 40)}) == [40]


_SEEN = st.dictionaries(
    st.integers(0, 30), st.tuples(st.integers(0, 2), st.integers(0, 1000)), max_size=20
)


@given(_SEEN, _SEEN)
def test_it_is_what_a_dict_would_say(before: Seen, now: Seen) -> None:
    expected = [
        max(0, octets - (before[port][1] if port in before and before[port][0] == created else 0))
        for port, (created, octets) in now.items()
    ]
    assert moved_bytes(before, now) == expected


async def test_the_top_sessions_come_first_and_no_more_than_asked() -> None:
    sessions = MemoryTable(layout("ach_session_key"), layout("ach_session"))
    keys, values = table({1: (1, 10), 2: (1, 20), 3: (1, 30)})
    sessions.update_batch(keys, values)

    reply = await FlowMeter(sessions).measure(FlowsRequest(seconds=0.1, limit=2))

    assert (len(reply.flows), reply.total) == (2, 3)
