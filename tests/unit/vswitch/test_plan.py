"""From a host document and what is there to the changes to make."""

from collections.abc import Mapping
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from achelous_shared.messages import HostDocument, Port, SecurityRule
from achelous_shared.names import port_ifname
from achelous_shared.routes import ip_bytes
from achelous_vswitch.classifier import ALLOW_ALL, ALLOW_NONE
from achelous_vswitch.plan import BoundPort, Desired, Link, Plan, plan
from achelous_vswitch.resolver import Resolver

GROUP = UUID(int=0x600)
TWIN = UUID(int=2 + (1 << 100))
"""A vNIC whose device would have the name of vNIC 2's."""


def port(number: int, **changes: object) -> Port:
    base = Port(
        vnic_id=UUID(int=number), instance_id=UUID(int=0), vni=7, revision=1,
        mac=bytes([2, 0, 0, 0, 0, number]), ip=ip_bytes(f"10.0.0.{number}"), prefix_len=120,
        router=ip_bytes("10.0.0.254"), mtu=1500, security_groups=(),
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def rule(number: int = 0, *, egress: bool = False) -> SecurityRule:
    return SecurityRule(
        egress=egress, protocol=6, port_min=number, port_max=number, remote=bytes(16), remote_len=0
    )


def resolved(
    *ports: Port, groups: Mapping[UUID, tuple[SecurityRule, ...]] | None = None, max_ports: int = 9
) -> Desired:
    document = HostDocument(
        host_id=UUID(int=1), revision=3, ports=ports, security_groups=dict(groups or {})
    )
    desired = Resolver(max_ports=max_ports, max_rules=4).take(document)
    assert desired is not None
    return desired


def link(number: int, ifindex: int | None = None, *, peer: bool = True) -> Link:
    return Link(ifindex or 100 + number, port_ifname(UUID(int=number)), 1500, peer)


def links(*numbers: int) -> dict[str, Link]:
    return {link(number).name: link(number) for number in numbers}


def running(desired: Desired, *numbers: int) -> dict[str, BoundPort]:
    """The ports with these numbers, run as desired."""
    names = [link(number).name for number in numbers]
    return {
        name: BoundPort(slot, links(*numbers)[name], desired.ports[name].config)
        for slot, name in enumerate(names, start=1)
    }


# ---- resolve -----------------------------------------------------------------------------------


def test_a_vnic_in_no_group_may_send_anything_and_receive_only_answers() -> None:
    (want,) = resolved(port(1)).ports.values()
    assert (want.config.rules_in, want.config.rules_out) == (ALLOW_NONE, ALLOW_ALL)


def test_a_group_is_taken_literally() -> None:
    desired = resolved(port(1, security_groups=(GROUP,)), groups={GROUP: (rule(22),)})
    (want,) = desired.ports.values()
    assert [found.first for found in want.config.rules_in.rules] == [22]
    assert want.config.rules_out == ALLOW_NONE


def test_rules_of_several_groups_add_up_and_equal_ones_count_once() -> None:
    groups = {UUID(int=n): (rule(0), rule(n)) for n in (1, 2, 3)}
    (want,) = resolved(port(1, security_groups=tuple(groups)), groups=groups).ports.values()
    assert {found.first for found in want.config.rules_in.rules} == {0, 1, 2, 3}


def test_vnics_in_the_same_groups_share_one_set_of_rules() -> None:
    in_group = [port(n, security_groups=(GROUP,)) for n in (1, 2)]
    a, b = resolved(*in_group, groups={GROUP: (rule(1),)}).ports.values()
    assert a.config.rules_in is b.config.rules_in


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (port(1, vni=0), "VNI is 0, should be 1..16777215"),
        (port(1, ip=b"1234"), "address is 4 bytes, should be 16"),
        (port(1, mac=b""), "MAC is 0 bytes, should be 6"),
        (port(1, prefix_len=129), "subnet's prefix length is 129, should be 96..128"),
        (port(1, mtu=9), "MTU is 9, should be 68..65535"),
        (port(1, security_groups=(GROUP,)), f"security group {GROUP} is not in the document"),
        (port(1, ip=ip_bytes("10.0.0.2")), f"address 10.0.0.2 of VNI 7 is vNIC {UUID(int=2)}'s"),
        (port(3, vnic_id=TWIN), f"device v000000000002 is vNIC {UUID(int=2)}'s"),
    ],
)  # fmt: skip
def test_a_vnic_with_bad_values_fails_alone_and_says_why(bad: Port, reason: str) -> None:
    desired = resolved(port(2), bad)
    assert desired.failed == {bad.vnic_id: reason}
    assert [want.vnic_id for want in desired.ports.values()] == [UUID(int=2)]


def test_too_many_rules_fail_their_vnic_alone() -> None:
    groups = {GROUP: tuple(rule(n, egress=True) for n in range(5))}
    desired = resolved(port(1, security_groups=(GROUP,)), port(2), groups=groups)
    assert "5 outbound rules, at most 4" in desired.failed[UUID(int=1)]
    assert len(desired.ports) == 1


def test_vnics_beyond_the_capacity_fail() -> None:
    desired = resolved(port(1), port(2), max_ports=1)
    assert desired.failed == {UUID(int=2): "the host runs at most 1 vNICs"}


# ---- plan --------------------------------------------------------------------------------------


def test_a_vnic_without_its_device_waits() -> None:
    assert plan(resolved(port(1)), {}, {}) == Plan((), (), (), (UUID(int=1),))


def test_a_vnic_with_its_device_is_bound() -> None:
    desired = resolved(port(1))
    changes = plan(desired, {}, links(1))
    assert [(want.vnic_id, found) for want, found in changes.bind] == [(UUID(int=1), link(1))]


def test_what_runs_as_desired_is_left_alone() -> None:
    desired = resolved(port(1), port(2))
    assert plan(desired, running(desired, 1, 2), links(1, 2)) == Plan((), (), (), ())


def test_other_rules_update_a_port_in_place() -> None:
    before = running(resolved(port(1)), 1)
    desired = resolved(port(1, security_groups=(GROUP,)), groups={GROUP: ()})
    changes = plan(desired, before, links(1))
    assert (len(changes.update), changes.unbind, changes.bind) == (1, (), ())


@pytest.mark.parametrize("change", [{"ip": ip_bytes("10.0.0.9")}, {"vni": 8}, {"mac": b"\2" * 6}])
def test_another_identity_is_another_vnic(change: dict[str, object]) -> None:
    before = running(resolved(port(1)), 1)
    changes = plan(resolved(port(1, **change)), before, links(1))
    assert (changes.unbind, len(changes.bind)) == ((link(1).name,), 1)


@pytest.mark.parametrize("back", [link(1, ifindex=999), link(1, peer=False)])
def test_a_device_that_came_back_as_another_is_bound_again(back: Link) -> None:
    desired = resolved(port(1))
    changes = plan(desired, running(desired, 1), {back.name: back})
    assert (changes.unbind, changes.bind[0][1]) == ((back.name,), back)


def test_a_vnic_whose_device_went_is_unbound_and_waits() -> None:
    desired = resolved(port(1))
    changes = plan(desired, running(desired, 1), {})
    assert (changes.unbind, changes.waiting) == ((link(1).name,), (UUID(int=1),))


numbers = st.sets(st.integers(1, 8))


@given(before=numbers, there=numbers, wanted=numbers)
def test_every_plan_leads_to_what_is_desired_and_then_to_nothing(
    before: set[int], there: set[int], wanted: set[int]
) -> None:
    bound = running(resolved(*(port(n) for n in before)), *before)
    desired = resolved(*(port(n) for n in wanted))
    changes = plan(desired, bound, links(*there))
    for device in changes.unbind:
        del bound[device]
    for want, found in changes.bind:
        assert want.device not in bound
        bound[want.device] = BoundPort(0, found, want.config)
    assert set(bound) == {link(n).name for n in wanted & there}
    assert plan(desired, bound, links(*there)) == Plan((), (), (), changes.waiting)


# ---- both families -----------------------------------------------------------------------------


def dual(number: int, **changes: object) -> Port:
    v6 = {"ip6": ip_bytes(f"fd00::{number}"), "router6": ip_bytes("fd00::ff"), "prefix_len6": 64}
    return port(number, **(v6 | changes))


def test_a_vnic_runs_with_either_family_or_both() -> None:
    desired = resolved(port(1), dual(2))
    configs = [want.config for want in desired.ports.values()]
    assert desired.failed == {}
    assert [config.addresses for config in configs] == [
        (ip_bytes("10.0.0.1"),),
        (ip_bytes("10.0.0.2"), ip_bytes("fd00::2")),
    ]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ip6": b"short"}, "IPv6 address is 5 bytes, should be 16"),
        ({"ip6": ip_bytes("10.0.0.9")}, "10.0.0.9, should be a unicast one of IPv6"),
        ({"ip6": bytes(16)}, "::, should be a unicast one of IPv6"),
        ({"router6": b""}, "IPv6 router's address is 0 bytes, should be 16"),
        ({"prefix_len6": 129}, "prefix length is 129, should be 1..128"),
        ({"ip6": b""}, "router's address of a vNIC without IPv6"),
        ({"ip6": ip_bytes("fd00::1")}, "address fd00::1 of VNI 7 is vNIC"),
        ({"dns": (b"short",)}, "at most 4 addresses of 16 bytes"),
        ({"dns": (bytes(16),) * 5}, "at most 4 addresses of 16 bytes"),
        ({"lease_s": 59}, "lease is 59 s, should be 60..604800"),
        ({"hostname": "n" * 64}, "host name has 64 bytes, should be at most 63"),
    ],
)
def test_a_vnic_with_wrong_values_fails_alone(changes: dict[str, object], why: str) -> None:
    desired = resolved(dual(1), dual(2, **changes))
    assert [want.vnic_id for want in desired.ports.values()] == [UUID(int=1)]
    assert why in desired.failed[UUID(int=2)]


def test_a_vnic_with_another_ipv6_address_is_another_one() -> None:
    before = resolved(dual(1)).ports[link(1).name]
    bound = {link(1).name: BoundPort(1, link(1), before.config)}
    changes = plan(resolved(dual(1, ip6=ip_bytes("fd00::9"))), bound, links(1))
    assert changes.unbind == (link(1).name,)
    assert [want.vnic_id for want, _ in changes.bind] == [UUID(int=1)]
    changes = plan(resolved(dual(1, router6=ip_bytes("fd00::fe"))), bound, links(1))
    assert (changes.unbind, changes.bind) == ((), ())
    assert [want.vnic_id for want in changes.update] == [UUID(int=1)]
