"""Choosing hosts."""

from ipaddress import IPv4Address
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from achelous_controller.domain import placement
from achelous_controller.domain.layout import indices
from achelous_controller.domain.placement import HostFull, NoRoom, Room


def host(number: int, vnic_count: int, capacity: int) -> Room:
    return Room(UUID(int=number), IPv4Address(number), vnic_count, capacity, 1)


def assign(hosts: list[Room], sizes: list[int], given: list[int | None]) -> list[int]:
    """The numbers of the hosts that are chosen; ``given``: likewise numbers, from 1 on."""
    numbers = indices(-1 if number is None else number - 1 for number in given)
    chosen = placement.assign(hosts, indices(sizes), numbers)
    return [hosts[index].host_id.int for index in chosen]


def test_the_host_with_the_fewest_vnics_is_chosen() -> None:
    hosts = [host(1, 5, 10), host(2, 3, 10), host(3, 4, 10)]

    chosen = assign(hosts, [1, 1, 1, 1], [None] * 4)

    assert chosen == [2, 2, 3, 1]


def test_a_given_host_is_kept_free_for_whom_it_is_given_to() -> None:
    hosts = [host(1, 0, 1), host(2, 5, 10)]

    chosen = assign(hosts, [1, 1], [None, 1])

    assert chosen == [2, 1]


def test_a_given_host_without_room_is_refused() -> None:
    with pytest.raises(HostFull) as refused:
        assign([host(1, 9, 10), host(2, 0, 10)], [1, 1], [1, 1])

    assert refused.value.index == 1


def test_a_host_too_full_for_one_instance_still_takes_a_smaller_one() -> None:
    chosen = assign([host(1, 0, 2), host(2, 1, 10)], [4, 1], [None, None])

    assert chosen == [2, 1]


loads = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=5)


@given(loads=loads, sizes=st.lists(st.integers(1, 4), max_size=12))
def test_capacity_is_never_exceeded(loads: list[tuple[int, int]], sizes: list[int]) -> None:
    hosts = [host(n, count, count + free) for n, (count, free) in enumerate(loads, 1)]
    try:
        chosen = assign(hosts, sizes, [None] * len(sizes))
    except NoRoom as refused:
        sizes = sizes[: refused.index]
        chosen = assign(hosts, sizes, [None] * len(sizes))
    for room in hosts:
        taken = sum(
            n for host_id, n in zip(chosen, sizes, strict=True) if host_id == room.host_id.int
        )
        assert room.vnic_count + taken <= room.capacity


@given(loads=loads, count=st.integers(0, 30))
def test_single_vnics_fill_all_the_room_that_there_is(
    loads: list[tuple[int, int]], count: int
) -> None:
    hosts = [host(n, used, used + free) for n, (used, free) in enumerate(loads, 1)]
    room = sum(free for _, free in loads)

    if count <= room:
        assert len(assign(hosts, [1] * count, [None] * count)) == count
    else:
        with pytest.raises(NoRoom) as refused:
            assign(hosts, [1] * count, [None] * count)
        assert refused.value.index == room
