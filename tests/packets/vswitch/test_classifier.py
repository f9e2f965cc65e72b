"""The compiled rules decide as reading the rules in their order does: any rules, any packet."""

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from packets.datapath import OWN_VTEP, PEER_VTEP, VNI, Datapath
from packets.frames import frame, guest, ping, tcp, udp, vxlan
from packets.outcome import Verdict
from packets.tables import mapped

from achelous_vswitch.classifier import ALLOW_ALL, MAX_RULES, Rule, Rules

pytestmark = pytest.mark.kernel

ME: Final = guest("10.0.0.5")
ADDRESSES: Final = ("10.0.0.6", "10.0.0.7", "10.0.1.9", "10.128.0.1", "9.255.255.255")
NUMBERS: Final = (0, 1, 2, 7, 65535)
PORTS: Final = (0, 1, 79, 80, 81, 443, 65534, 65535)
ECHO: Final = 8 << 8


@dataclass(frozen=True, slots=True)
class Packet:
    """What an arriving packet is judged by."""

    remote: str
    protocol: int
    port: int
    identity: int

    @property
    def detail(self) -> int:
        return ECHO if self.protocol == 1 else self.port

    def layers(self) -> Any:
        make = {1: lambda: ping(), 6: lambda: tcp(dport=self.port), 17: lambda: udp(9, self.port)}
        return make[self.protocol]()

    def on_the_wire(self) -> bytes:
        inner = frame(guest(self.remote), ME.ip, self.layers())
        return vxlan(
            inner, vteps=(PEER_VTEP, OWN_VTEP), vni=VNI, dmac=ME.mac, identity=self.identity
        )


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    protocol = draw(st.sampled_from((0, 1, 6, 17, 47)))
    first = last = 0
    if protocol in (0, 47) or draw(st.booleans()):
        last = 0xFFFF
    else:
        edges = st.sampled_from((*PORTS, ECHO)) | st.integers(0, 0xFFFF)
        first, last = sorted((draw(edges), draw(edges)))
    remote = draw(
        st.sampled_from([mapped(ip) for ip in ADDRESSES]) | st.binary(min_size=16, max_size=16)
    )
    return Rule(
        priority=draw(st.sampled_from((0, 1000, 1001, 65535))),
        allow=draw(st.booleans()),
        protocol=protocol,
        first=first,
        last=last,
        remote=remote,
        remote_len=draw(st.sampled_from((0, 1, 80, 96, 104, 112, 120, 127, 128))),
        v6_only=draw(st.booleans()),
        identities=draw(
            st.none()
            | st.sets(st.sampled_from(NUMBERS[1:])).map(lambda found: tuple(sorted(found)))
        ),
    )


packets = st.builds(
    Packet,
    st.sampled_from(ADDRESSES),
    st.sampled_from((1, 6, 17)),
    st.sampled_from(PORTS) | st.integers(0, 0xFFFF),
    st.sampled_from(NUMBERS),
)


def matches(rule: Rule, packet: Packet) -> bool:
    address = int.from_bytes(mapped(packet.remote))
    shift = 128 - rule.remote_len
    return (
        rule.protocol in (0, packet.protocol)
        and rule.first <= packet.detail <= rule.last
        and address >> shift == int.from_bytes(rule.remote) >> shift
        and not rule.v6_only  # every packet here is IPv4
        and (rule.identities is None or packet.identity in rule.identities)
    )


def allowed(found: list[Rule], packet: Packet) -> bool:
    """By reading the rules one by one: the lowest priority that matches decides, a denial first."""
    matching = [rule for rule in found if matches(rule, packet)]
    best = min((rule.priority for rule in matching), default=0)
    return bool(matching) and all(rule.allow for rule in matching if rule.priority == best)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example([], [Packet("10.0.0.6", 6, 80, 0)])
@given(
    st.lists(rules(), max_size=12) | st.lists(rules(), min_size=60, max_size=140),
    st.lists(packets, min_size=1, max_size=6),
)
def test_the_classifier_agrees_with_the_rules_read_in_order(
    datapath: Datapath, found: list[Rule], probes: list[Packet]
) -> None:
    datapath.start_over()
    datapath.port(ME.ip, acl_in=datapath.rule_set_of(Rules.of((rule, None) for rule in found)))
    for packet in probes:
        datapath.forget_sessions()
        outcome = datapath.receive(packet.on_the_wire())
        assert (outcome.verdict is Verdict.REDIRECT) is allowed(found, packet), packet


def test_as_many_rules_as_a_vnic_may_have_and_none_like_another(datapath: Datapath) -> None:
    first = int(IPv4Address("10.0.0.1"))
    found = [
        Rule(1000, n % 2 == 0, 6, 2 * n, 2 * n, mapped(str(IPv4Address(first + 2 * n))), 128)
        for n in range(MAX_RULES)
    ]
    datapath.port(ME.ip, acl_in=datapath.rule_set_of(Rules.of((rule, None) for rule in found)))
    for n in (*range(8, MAX_RULES, 41), MAX_RULES - 1):
        remote = str(IPv4Address(first + 2 * n))
        for packet in (Packet(remote, 6, 2 * n, 0), Packet(remote, 6, 2 * n + 1, 0)):
            outcome = datapath.receive(packet.on_the_wire())
            assert (outcome.verdict is Verdict.REDIRECT) is allowed(found, packet), packet


def test_a_vnic_without_groups_may_send_anything(datapath: Datapath) -> None:
    me = datapath.port(ME.ip, allow_in=(), acl_out=datapath.rule_set_of(ALLOW_ALL))
    assert datapath.send(me, frame(ME, "10.0.0.6", udp())).verdict is Verdict.REDIRECT
