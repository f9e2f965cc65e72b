"""A host's document holds its ports and what they refer to, and survives the bus."""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from achelous_controller.programming.held_ports import HeldPorts
from achelous_controller.programming.host_documents import message_of
from achelous_shared.messages import HostDocument, Port, SecurityRule, decode, encode

GROUPS = [UUID(int=n) for n in range(1, 5)]
HOST = UUID(int=100)

rules = st.builds(
    SecurityRule,
    egress=st.booleans(),
    protocol=st.integers(0, 255),
    port_min=st.integers(0, 65535),
    port_max=st.integers(0, 65535),
    remote=st.binary(min_size=16, max_size=16),
    remote_len=st.integers(0, 128),
)
ports = st.builds(
    Port,
    vnic_id=st.uuids(),
    instance_id=st.uuids(),
    vni=st.integers(1, 2**24 - 1),
    mac=st.binary(min_size=6, max_size=6),
    ip=st.binary(min_size=16, max_size=16),
    prefix_len=st.integers(96, 128),
    router=st.binary(min_size=16, max_size=16),
    mtu=st.just(1500),
    security_groups=st.lists(st.sampled_from(GROUPS), unique=True).map(tuple),
    revision=st.integers(1, 2**63 - 1),
)


def made_of(
    of_host: list[Port],
    known: Mapping[UUID, Sequence[SecurityRule]],
    preprogrammed: Collection[int] = (),
) -> HostDocument:
    """As the host reads it."""
    now = HeldPorts().update(HOST, 9, None, of_host, preprogrammed)
    return decode(encode(message_of(HOST, now, now.untold(), known, ())), HostDocument)


@given(
    st.lists(ports, max_size=5),
    st.dictionaries(st.sampled_from(GROUPS), st.lists(rules, max_size=3)),
)
def test_it_has_the_groups_of_its_own_ports_and_round_trips(
    of_host: list[Port], known: dict[UUID, list[SecurityRule]]
) -> None:
    made = made_of(of_host, known)
    named = {group for port in of_host for group in port.security_groups}
    assert made.ports == tuple(of_host)
    assert made.security_groups == {group: tuple(known.get(group, ())) for group in named}
    assert decode(encode(made), HostDocument) == made


@given(st.lists(ports, max_size=5), st.sets(st.integers(1, 2**24 - 1), max_size=5))
def test_it_names_those_of_its_vpcs_that_are_preprogrammed(
    of_host: list[Port], others: set[int]
) -> None:
    mine = {port.vni for port in of_host[::2]}
    made = made_of(of_host, {}, preprogrammed=mine | others)
    assert set(made.preprogrammed) == (mine | others) & {port.vni for port in of_host}
    assert list(made.preprogrammed) == sorted(made.preprogrammed)


@given(st.lists(ports, max_size=5))
def test_the_same_ports_make_the_same_bytes(of_host: list[Port]) -> None:
    known: dict[UUID, list[SecurityRule]] = {group: [] for group in GROUPS}
    backwards = dict(reversed(known.items()))
    made = encode(made_of(of_host, known))
    assert made == encode(made_of(of_host, backwards))
