"""The shares of gateways: even, the same everywhere, and moved as little as possible."""

from collections import Counter
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from achelous_vswitch import rendezvous

SLOTS = 1024
fleets = st.dictionaries(st.uuids(), st.integers(1, (1 << 32) - 1), min_size=1, max_size=8).filter(
    lambda fleet: len(set(fleet.values())) == len(fleet)
)


def test_without_gateways_no_slot_has_one() -> None:
    assert not rendezvous.table({}, SLOTS).any()


@given(fleets)
def test_every_slot_belongs_to_a_gateway(fleet: dict[UUID, int]) -> None:
    assert set(rendezvous.table(fleet, SLOTS).tolist()) <= set(fleet.values())


@given(fleets)
def test_the_order_in_which_gateways_are_named_means_nothing(fleet: dict[UUID, int]) -> None:
    backwards = dict(reversed(fleet.items()))
    assert (rendezvous.table(fleet, SLOTS) == rendezvous.table(backwards, SLOTS)).all()


@given(fleets, st.data())
def test_a_gateway_that_goes_moves_only_its_own_slots(
    fleet: dict[UUID, int], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(sorted(fleet)))
    before = rendezvous.table(fleet, SLOTS)
    after = rendezvous.table({key: vtep for key, vtep in fleet.items() if key != gone}, SLOTS)
    kept = before != fleet[gone]
    assert (before[kept] == after[kept]).all()


def test_shares_are_even() -> None:
    fleet = {UUID(int=number): number for number in range(1, 5)}
    counts = Counter(rendezvous.table(fleet, SLOTS).tolist())
    assert all(SLOTS / 4 * 0.7 < count < SLOTS / 4 * 1.3 for count in counts.values())
