"""Choosing addresses, compared with a model that tries them one by one."""

from hypothesis import given
from hypothesis import strategies as st

from achelous_controller.domain.addresses import Gap, take

FIRST, LAST = 1000, 1060


def gaps_of(used: set[int], low: int, high: int) -> list[Gap]:
    """The gaps between used addresses, found by looking at every one."""
    gaps: list[Gap] = []
    for address in range(low, high + 1):
        if address in used:
            continue
        if gaps and gaps[-1].last == address - 1:
            gaps[-1] = Gap(gaps[-1].first, address)
        else:
            gaps.append(Gap(address, address))
    return gaps


addresses = st.integers(FIRST, LAST)


@given(
    used=st.sets(addresses),
    excluded=st.sets(addresses),
    start=st.integers(FIRST, LAST),
    wanted=st.integers(0, 70),
)
def test_the_free_addresses_from_the_start_on_are_taken_once_each(
    used: set[int], excluded: set[int], start: int, wanted: int
) -> None:
    ranges = [(start, LAST), (FIRST, start - 1)]
    order = [address for low, high in ranges for address in range(low, high + 1)]
    gaps = [gap for low, high in ranges for gap in gaps_of(used, low, high)]

    taken = take(gaps, wanted, excluded).tolist()

    assert sorted(order) == list(range(FIRST, LAST + 1))
    assert taken == [a for a in order if a not in used | excluded][:wanted]


def test_the_end_of_64_bits_is_reached() -> None:
    last = (1 << 64) - 1

    assert take([Gap(last - 2, last)], 5, {last - 1}).tolist() == [last - 2, last]
    assert take([Gap(1, last)], 2, {1}).tolist() == [2, 3]
