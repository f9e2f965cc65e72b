"""What a host may be configured with: drawn by hypothesis, said to both sides."""

from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Final, TypeVar

from hypothesis import strategies as st
from model.rules import Rule
from model.wire import GRE, ICMP, ICMPV6, TCP, UDP
from packets.differential.people import AWAY, EVERYBODY, HERE, Person

T = TypeVar("T")

WEB: Final = 17
DB: Final = 4711
IDENTITIES: Final = (0, 0, 0, WEB, DB, 0xFFFF)
TIMESTAMP: Final = 13
"""As the second port of ICMP: the talk is of timestamps, not of echoes."""
PORTS: Final = (53, 80, 1000, 2000)
ANYTHING: Final = (Rule(ip_network("0.0.0.0/0")), Rule(ip_network("::/0")))
NETWORKS: Final = (
    "0.0.0.0/0", "::/0", "10.0.0.0/24", "10.0.1.0/24", "10.0.0.6/32", "10.0.0.9/32",
    "0.0.0.0/1", "fd00::/64", "fd00::9/128", "fd00::/15",
)  # fmt: skip
DETAILS: Final = ((0, 65535), (80, 80), (0, 1023), (1000, 2000), (0x800, 0x8FF), (0x8000, 0x80FF))


@dataclass(frozen=True, slots=True)
class Talk:
    """A flow from `first` to `second`, who may both be elsewhere only if one is here."""

    version: int
    first: Person
    second: Person
    protocol: int
    sport: int
    dport: int

    def ends(self, *, back: bool) -> tuple[Person, Person]:
        """Sender and receiver of a packet."""
        return (self.second, self.first) if back else (self.first, self.second)

    def ports(self, *, back: bool) -> tuple[int, int]:
        return (self.dport, self.sport) if back else (self.sport, self.dport)


@dataclass(frozen=True, slots=True)
class Nic:
    """What is drawn of a vNIC."""

    rules_in: tuple[Rule, ...]
    rules_out: tuple[Rule, ...]
    identity: int
    mtu: int
    session_limit: int
    has_ipv6: bool


@dataclass(frozen=True, slots=True)
class Cached:
    """What is drawn of a route."""

    person: Person
    elsewhere: bool
    """On the second of the other hosts."""
    mtu: int
    identity: int


@dataclass(frozen=True, slots=True)
class Situation:
    """A host before its first packet."""

    nics: tuple[Nic, ...]
    routes: tuple[Cached, ...]
    talks: tuple[Talk, ...]
    gateways: bool
    underlay_mtu: int
    session_limit: int
    refuse_midstream: bool
    learn_packets: int
    learn_bytes: int


def weighted(*choices: tuple[int, st.SearchStrategy[T]]) -> st.SearchStrategy[T]:
    """One of the strategies, each as often as its weight says (one_of takes them all alike)."""
    among = [strategy for weight, strategy in choices for _ in range(weight)]
    return st.integers(0, len(among) - 1).flatmap(among.__getitem__)


def mostly(usual: T, other: T) -> st.SearchStrategy[T]:
    """The other only now and then."""
    return weighted((7, st.just(usual)), (1, st.just(other)))


rules: Final = st.builds(
    Rule,
    st.sampled_from(NETWORKS).map(ip_network),
    st.sampled_from((0, 0, TCP, UDP, ICMP, ICMPV6, GRE)),
    st.sampled_from(DETAILS),
    st.sampled_from((True, True, True, False)),
    st.sampled_from((1, 2, 3)),
    st.sampled_from((None, None, None, frozenset((WEB,)), frozenset((WEB, DB)))),
)
some_rules: Final = weighted(
    (9, st.just(ANYTHING)),
    (1, st.just((replace(ANYTHING[0], identities=frozenset((WEB, DB))),))),
    (1, st.lists(rules, max_size=4).map(tuple)),
    (2, st.lists(rules, max_size=3).map(lambda more: (*more, *ANYTHING))),
)
nics: Final = st.builds(
    Nic,
    some_rules,
    some_rules,
    st.sampled_from(IDENTITIES),
    mostly(1500, 1300),
    mostly(0, 3),
    mostly(True, False),
)


@st.composite
def talks(draw: st.DrawFn) -> Talk:
    first = draw(st.sampled_from(EVERYBODY))
    others = HERE if not first.slot else EVERYBODY
    second = draw(st.sampled_from([p for p in others if p.vni == first.vni]))
    version = draw(st.sampled_from((4, 4, 6)))
    ping = ICMP if version == 4 else ICMPV6
    protocol = draw(st.sampled_from((TCP, TCP, TCP, UDP, UDP, ping, GRE)))
    sport, dport = draw(st.sampled_from(PORTS)), draw(st.sampled_from(PORTS))
    if protocol == ping:
        dport = draw(st.sampled_from((sport, sport, TIMESTAMP))) if version == 4 else sport
    if protocol == GRE:
        sport = dport = 0
    return Talk(version, first, second, protocol, sport, dport)


@st.composite
def cached(draw: st.DrawFn, person: Person) -> Cached:
    mtu, identity = draw(mostly(1500, 1400)), draw(st.sampled_from(IDENTITIES))
    return Cached(person, draw(st.booleans()), mtu, identity)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    known = draw(st.lists(st.sampled_from(AWAY), unique=True, max_size=2))
    return Situation(
        nics=tuple(draw(nics) for _ in HERE),
        routes=tuple(draw(cached(person)) for person in known),
        talks=tuple(draw(st.lists(talks(), min_size=2, max_size=4))),
        gateways=draw(mostly(True, False)),
        underlay_mtu=draw(mostly(1600, 1450)),
        session_limit=draw(mostly(0, 4)),
        refuse_midstream=draw(mostly(False, True)),
        learn_packets=draw(st.sampled_from((1, 1, 2))),
        learn_bytes=draw(st.sampled_from((0, 200))),
    )
