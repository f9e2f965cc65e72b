"""The ports and rule sets of the packet path, written, changed, and adopted by a new agent."""

from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest
from vswitch_memory import MemoryTable, memory_dataplane

from achelous_shared.names import port_ifname
from achelous_shared.routes import ip_bytes
from achelous_vswitch.classifier import ALLOW_ALL, ALLOW_NONE, Rule, Rules
from achelous_vswitch.dataplane import Dataplane, vni_ip
from achelous_vswitch.lease import Lease
from achelous_vswitch.plan import BoundPort, DesiredPort, Link, PortConfig
from achelous_vswitch.ports import PortTable
from achelous_vswitch.rules import RuleSets

VNI = 7
SSH = Rules.of([(Rule(1000, True, 6, 22, 22, bytes(16), 0), UUID(int=22))])


def link(number: int) -> Link:
    return Link(100 + number, port_ifname(UUID(int=number)), 1500, peer=True)


def want(number: int, rules_in: Rules = SSH, rules_out: Rules = ALLOW_ALL) -> DesiredPort:
    config = PortConfig(
        VNI, ip_bytes(f"10.0.0.{number}"), bytes([2, 0, 0, 0, 0, number]), ip_bytes("10.0.0.254"),
        120, 1500, rules_in, rules_out,
    )  # fmt: skip
    return DesiredPort(UUID(int=number), link(number).name, config)


def dual(number: int) -> DesiredPort:
    """Like `want`, with an IPv6 address."""
    base = want(number)
    config = replace(
        base.config, ip6=ip_bytes(f"fd00::{number}"), router6=ip_bytes("fd00::ff"), prefix_len6=64
    )
    return replace(base, config=config)


def without_rules(port: DesiredPort | BoundPort) -> PortConfig:
    """What an agent that starts can see of a port."""
    return replace(port.config, rules_in=ALLOW_NONE, rules_out=ALLOW_NONE)


class Agent:
    """One life of an agent over a packet path; `links` are the devices that it finds."""

    def __init__(self, dataplane: Dataplane, *links: Link) -> None:
        self.dataplane = dataplane
        self.rules = RuleSets(dataplane.acl_sets, dataplane.acl_words, rest_s=1.0)
        self.rules.adopt(now=0)
        self.ports = PortTable(dataplane, self.rules, links)

    def slot(self, number: int, prefix: str = "10.0.0.") -> int | None:
        key = vni_ip(self.dataplane.endpoints.key_dtype, VNI, ip_bytes(f"{prefix}{number}"))
        found = self.dataplane.endpoints.lookup(key)
        return None if found is None else int(found)


@pytest.fixture
def dataplane() -> Dataplane:
    return memory_dataplane(ports=4)


@pytest.fixture
def agent(dataplane: Dataplane) -> Agent:
    return Agent(dataplane)


def test_a_bound_port_is_found_by_device_and_by_address(agent: Agent, dataplane: Dataplane) -> None:
    agent.ports.bind(want(1), link(1), now=0)
    slot = agent.slot(1)
    assert slot
    assert dataplane.port_by_ifindex.lookup(101) == slot
    assert dataplane.vnis.lookup(VNI) == 1
    entry = dataplane.ports[slot]
    assert entry["generation"] % 2 == 1
    assert (entry["ifindex"], entry["flags"]) == (101, 1)
    assert agent.rules.id_of(SSH) == entry["acl_in"]


def test_an_unbound_port_is_found_no_more_and_its_sessions_end(
    agent: Agent, dataplane: Dataplane
) -> None:
    agent.ports.bind(want(1), link(1), now=0)
    slot = agent.slot(1)
    assert slot
    before = dataplane.ports[slot].copy()
    agent.ports.unbind(link(1).name, now=0)
    after = dataplane.ports[slot]
    assert agent.slot(1) is None
    assert dataplane.port_by_ifindex.lookup(101) is None
    assert dataplane.vnis.lookup(VNI) is None
    assert after["generation"] == before["generation"] + 1
    assert after["acl_gen"] != before["acl_gen"]


def test_a_slot_rests_and_starts_with_counters_of_zero(agent: Agent, dataplane: Dataplane) -> None:
    agent.ports.bind(want(1), link(1), now=0)
    slot = agent.slot(1)
    assert slot
    counters = dataplane.counters.per_cpu_lookup(slot)
    counters["tx_packets"] = 5
    dataplane.counters.per_cpu_update(slot, counters)
    agent.ports.unbind(link(1).name, now=0)
    for number in (2, 3, 4):
        agent.ports.bind(want(number), link(number), now=0.5)
    with pytest.raises(OSError, match="no slot is free"):
        agent.ports.bind(want(1), link(1), now=0.5)
    agent.ports.bind(want(1), link(1), now=1.5)
    assert agent.ports.totals()["tx_packets"].tolist() == [0] * 5
    assert agent.ports.host_totals()["tx_packets"] == 10  # not forgotten for the host


def test_other_rules_move_the_rule_generation_and_nothing_else(
    agent: Agent, dataplane: Dataplane
) -> None:
    agent.ports.bind(want(1), link(1), now=0)
    slot = agent.slot(1)
    before = dataplane.ports[slot].copy()
    agent.ports.update(want(1, rules_in=ALLOW_NONE), now=0)
    after = dataplane.ports[slot]
    assert after["acl_in"] == 0
    assert after["acl_gen"] != before["acl_gen"]
    assert after["generation"] == before["generation"]


def test_equal_rules_are_one_set_and_go_when_nobody_has_held_them_for_a_while(
    agent: Agent, dataplane: Dataplane
) -> None:
    for number in (1, 2):
        agent.ports.bind(want(number), link(number), now=0)
    assert len(agent.rules) == 2  # one of each direction
    agent.ports.unbind(link(1).name, now=0)
    agent.ports.update(want(2, rules_in=ALLOW_NONE), now=5)
    agent.rules.sweep(now=5.5)
    assert len(agent.rules) == 2
    agent.rules.sweep(now=6.5)
    assert len(agent.rules) == 1


def test_a_port_whose_rules_do_not_fit_leaves_nothing_behind(dataplane: Dataplane) -> None:
    assert isinstance(dataplane.acl_sets, MemoryTable)
    dataplane.acl_sets.limit = 1
    agent = Agent(dataplane)
    with pytest.raises(OSError, match="full"):
        agent.ports.bind(want(1), link(1), now=0)
    assert (agent.slot(1), agent.ports.bound) == (None, {})
    assert not (dataplane.ports["generation"] % 2).any()


def test_a_new_agent_finds_the_ports_as_they_run(agent: Agent, dataplane: Dataplane) -> None:
    for number in (1, 2):
        agent.ports.bind(want(number), link(number), now=0)
    before = dataplane.ports.copy()
    again = Agent(dataplane, link(1), link(2))
    assert {device: port.slot for device, port in again.ports.bound.items()} == {
        link(n).name: agent.slot(n) for n in (1, 2)
    }
    for number in (1, 2):  # what rules they have it sees when it is told what they shall be
        again.ports.update(want(number), now=0)
    assert again.ports.bound == agent.ports.bound
    assert (dataplane.ports == before).all()
    again.rules.sweep(now=99)
    assert len(again.rules) == 2


def test_a_new_agent_knows_ports_whose_device_is_gone_by_none(
    agent: Agent, dataplane: Dataplane
) -> None:
    agent.ports.bind(want(1), link(1), now=0)
    (name,) = Agent(dataplane).ports.bound
    assert "no device" in name


def test_repair_finishes_what_an_agent_that_died_had_begun(
    agent: Agent, dataplane: Dataplane
) -> None:
    for number in (1, 2):
        agent.ports.bind(want(number), link(number), now=0)
    dataplane.port_by_ifindex.delete(np.uint32(101))  # 1 was not bound to the end
    dataplane.ports["generation"][agent.slot(2)] += 1  # 2 was not unbound to the end
    again = Agent(dataplane, link(1), link(2))
    again.ports.repair()
    assert dataplane.port_by_ifindex.lookup(101) == again.slot(1)
    assert again.slot(2) is None
    assert dataplane.port_by_ifindex.lookup(102) is None


# ---- both families -----------------------------------------------------------------------------


def test_a_port_is_found_by_either_address_until_it_is_unbound(
    agent: Agent, dataplane: Dataplane
) -> None:
    agent.ports.bind(dual(1), link(1), now=0)
    slot = agent.slot(1)
    assert slot
    assert agent.slot(1, "fd00::") == slot
    entry = dataplane.ports[slot]
    assert entry["ip6"].tobytes() == ip_bytes("fd00::1")
    assert entry["router6"].tobytes() == ip_bytes("fd00::ff")
    assert entry["prefix_len6"] == 64
    agent.ports.unbind(link(1).name, now=0)
    assert (agent.slot(1), agent.slot(1, "fd00::")) == (None, None)


def test_a_slot_remembers_no_ipv6_address_of_the_vnic_before(
    agent: Agent, dataplane: Dataplane
) -> None:
    for number in (1, 2, 3, 4):
        agent.ports.bind(dual(number), link(number), now=0)
        agent.ports.unbind(link(number).name, now=0)
    agent.ports.bind(want(1), link(1), now=9)
    entry = dataplane.ports[agent.slot(1)]
    assert not entry["ip6"].any()
    assert not entry["router6"].any()
    assert entry["prefix_len6"] == 0


def test_a_new_agent_finds_both_addresses_and_repairs_them(
    agent: Agent, dataplane: Dataplane
) -> None:
    agent.ports.bind(dual(1), link(1), now=0)
    agent.ports.bind(want(2), link(2), now=0)
    key = vni_ip(dataplane.endpoints.key_dtype, VNI, ip_bytes("fd00::1"))
    dataplane.endpoints.delete(key)
    stray = vni_ip(dataplane.endpoints.key_dtype, VNI, ip_bytes("fd00::99"))
    dataplane.endpoints.update(stray, 1)
    again = Agent(dataplane, link(1), link(2))
    again.ports.repair()
    for wanted in (dual(1), want(2)):
        assert without_rules(again.ports.bound[wanted.device]) == without_rules(wanted)
    assert again.slot(1, "fd00::") == again.slot(1)
    assert dataplane.endpoints.lookup(stray) is None


# ---- what guests are told ------------------------------------------------------------------------


def test_a_new_agent_finds_what_guests_are_told(agent: Agent, dataplane: Dataplane) -> None:
    told = Lease(600, b"four", b"six", b"advertisement")
    base = dual(1)
    leased = replace(base, config=replace(base.config, lease=told))
    agent.ports.bind(leased, link(1), now=0)
    again = Agent(dataplane, link(1))
    assert again.ports.bound[link(1).name].config.lease == told
    shorter = replace(base.config, lease=Lease(600, b"4", b"", b""))
    again.ports.update(replace(base, config=shorter), now=0)
    assert Agent(dataplane, link(1)).ports.bound[link(1).name].config.lease == shorter.lease
