"""Which sessions are over."""

import numpy as np
import pytest
from vswitch_memory import layout

from achelous_vswitch.dataplane import Array
from achelous_vswitch.sessions import (
    CLOSING,
    HOP_LOCAL,
    ICMP,
    MARGIN_S,
    REPLIED,
    TCP,
    UDP,
    Timeouts,
    expired,
    orphaned,
)

S = 10**9
TIMEOUTS = Timeouts(3600 * S, 30 * S, 60 * S, 20 * S)
NOW = 10_000 * S


def session(protocol: int = TCP, flags: int = 0, idle_s: float = 0) -> tuple[Array, Array]:
    key = np.zeros(1, layout("ach_session_key"))
    key["proto"] = protocol
    value = np.zeros(1, layout("ach_session"))
    value["flags"] = flags
    value["last_seen_ns"] = NOW - int(idle_s * S)
    return key, value


@pytest.mark.parametrize(
    ("protocol", "flags", "timeout_s"),
    [
        (TCP, REPLIED, 3600),
        (TCP, 0, 30),
        (TCP, REPLIED | CLOSING, 30),
        (UDP, REPLIED, 60),
        (132, 0, 60),
        (ICMP, REPLIED, 20),
    ],
)
def test_a_session_is_over_when_idle_for_its_timeout_and_the_margin(
    protocol: int, flags: int, timeout_s: int
) -> None:
    for idle_s, over in ((timeout_s + MARGIN_S - 1, False), (timeout_s + MARGIN_S + 1, True)):
        assert expired(*session(protocol, flags, idle_s), TIMEOUTS, NOW).tolist() == [over]


def test_a_session_seen_by_another_cpu_after_the_clock_was_read_is_not_over() -> None:
    assert not expired(*session(idle_s=-0.001), TIMEOUTS, NOW).any()


def with_ends(*generations: int | None) -> Array:
    """A session whose sides were local at slots 1 and 2 with these generations; None: not local."""
    _, value = session()
    for side, generation in enumerate(generations):
        if generation is not None:
            value["acl_port"][0, side] = side + 1
            value["hop"][0, side] = (HOP_LOCAL | (side + 1), generation)
    return value


@pytest.mark.parametrize(
    ("ends", "over"),
    [
        ((1, None), False),
        ((1, 1), False),
        ((3, None), True),  # the slot is another vNIC's by now
        ((3, 1), False),  # the other end is still here
        ((None, 1), False),
        ((None, None), False),
    ],
)
def test_a_session_is_orphaned_when_its_last_end_here_is_gone(
    ends: tuple[int | None, int | None], over: bool
) -> None:
    ports = np.zeros(4, layout("ach_port"))
    ports["generation"][1:3] = 1
    assert orphaned(with_ends(*ends), ports).tolist() == [over]


def test_a_session_of_a_freed_slot_is_orphaned() -> None:
    ports = np.zeros(4, layout("ach_port"))
    ports["generation"][1] = 2
    assert orphaned(with_ends(1, None), ports).tolist() == [True]
