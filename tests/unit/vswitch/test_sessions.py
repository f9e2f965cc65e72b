"""Which sessions are over."""

import numpy as np
import pytest
from vswitch_memory import layout

from achelous_vswitch.dataplane import Array
from achelous_vswitch.sessions import (
    ARRIVED,
    ESTABLISHED,
    FIN_0,
    FIN_1,
    HOP_LOCAL,
    ICMP,
    ICMPV6,
    MARGIN_S,
    REPLIED,
    RST_1,
    TCP,
    UDP,
    SessionCounts,
    State,
    expired,
    orphaned,
    states,
)

S = 10**9
TIMEOUTS = np.array([10 * (state + 1) * S for state in State], np.int64)
NOW = 10_000 * S


def session(protocol: int = TCP, flags: int = 0, idle_s: float = 0) -> tuple[Array, Array]:
    key = np.zeros(1, layout("ach_session_key"))
    key["proto"] = protocol
    value = np.zeros(1, layout("ach_session"))
    value["flags"] = flags
    value["last_seen_ns"] = NOW - int(idle_s * S)
    return key, value


@pytest.mark.parametrize(
    ("protocol", "flags", "state"),
    [
        (TCP, 0, State.SYN_SENT),
        (TCP, REPLIED, State.SYN_RECEIVED),
        (TCP, REPLIED | ESTABLISHED, State.ESTABLISHED),
        (TCP, REPLIED | ESTABLISHED | FIN_1, State.CLOSING),
        (TCP, REPLIED | ESTABLISHED | FIN_0 | FIN_1, State.CLOSED),
        (TCP, RST_1, State.CLOSED),
        (UDP, 0, State.UDP_SENT),
        (UDP, REPLIED, State.UDP_REPLIED),
        (ICMP, REPLIED, State.ICMP),
        (ICMPV6, 0, State.ICMP),
        (132, 0, State.OTHER),
    ],
)
def test_a_session_is_over_when_idle_for_its_states_timeout_and_the_margin(
    protocol: int, flags: int, state: State
) -> None:
    assert states(*session(protocol, flags)).tolist() == [state]
    timeout_s = TIMEOUTS[state] / S + MARGIN_S
    for idle_s, over in ((timeout_s - 1, False), (timeout_s + 1, True)):
        assert expired(*session(protocol, flags, idle_s), TIMEOUTS, NOW).tolist() == [over]


def test_a_session_seen_by_another_cpu_after_the_clock_was_read_is_not_over() -> None:
    assert not expired(*session(idle_s=-0.001), TIMEOUTS, NOW).any()


def owned(*owners: tuple[int, int]) -> Array:
    """Sessions of (slot, flags) that are older than any agent."""
    values = np.zeros(len(owners), layout("ach_session"))
    values["owner"] = [slot for slot, _ in owners]
    values["flags"] = [flags for _, flags in owners]
    return values


def test_a_removed_session_is_not_its_owners_any_more() -> None:
    table = np.zeros(4, layout("ach_session_counts"))
    table["opened"][1] = (3, 2)
    counts = SessionCounts(table)
    counts.removed(owned((1, 0), (1, ARRIVED), (1, 0)))
    assert counts.open()[1].tolist() == [1, 1]


def test_a_pass_over_all_sessions_finds_what_was_removed_and_not_counted() -> None:
    table = np.zeros(4, layout("ach_session_counts"))
    table["opened"][1] = (10, 0)
    counts = SessionCounts(table)
    table["opened"][1] = (12, 0)  # two more since the pass began: it may see them or not
    counts.seen(owned((1, 0), (1, 0), (1, 0)))
    counts.pass_over()
    assert counts.open()[1].tolist() == [5, 0]


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
