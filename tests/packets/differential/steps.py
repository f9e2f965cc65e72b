"""What happens on the host: packets of talks, odd frames, time that passes, changes of tables."""

from dataclasses import dataclass
from typing import Final

from hypothesis import strategies as st
from model.rules import Rule
from model.sessions import ACK, FIN, RST, SYN
from packets.differential.people import AWAY, EVERYBODY, HERE, Person
from packets.differential.situations import (
    IDENTITIES,
    Cached,
    cached,
    mostly,
    some_rules,
    weighted,
)


@dataclass(frozen=True, slots=True)
class Say:
    """One packet of a talk. `segment`: it is a GSO frame with segments of that size."""

    talk: int
    back: bool = False
    flags: int = SYN
    size: int = 8
    hops: int = 64
    tos: int = 0
    segment: int = 0
    extensions: tuple[int, ...] = ()
    """Kinds of IPv6 extension headers: their numbers, a routing header of type 0 being 1043."""


@dataclass(frozen=True, slots=True)
class Shake:
    """A whole TCP handshake: three packets."""

    talk: int


@dataclass(frozen=True, slots=True)
class Scan:
    """First packets from many ports: more sessions than there is room for."""

    talk: int
    count: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A fragment of a datagram of a talk. `offset` and `size` in bytes."""

    talk: int
    back: bool
    ident: int
    offset: int
    size: int
    more: bool
    hops: int


@dataclass(frozen=True, slots=True)
class Complain:
    """An ICMP error about a packet of a talk (`back`: about one of the second).

    `by`: "receiver", or "sender" or "third" who has no business to; `cut`: bytes that it quotes.
    """

    talk: int
    back: bool
    by: str
    kind: int
    cut: int
    other_port: bool
    hops: int


@dataclass(frozen=True, slots=True)
class Local:
    """A frame that concerns the guest's link alone, by its name in `local.py`."""

    person: Person
    what: str


@dataclass(frozen=True, slots=True)
class Lie:
    """A packet of a talk whose sender is not honest, or odd: by its name in `odd.py`."""

    talk: int
    what: str


@dataclass(frozen=True, slots=True)
class Bend:
    """A packet that the underlay brings, its outer or inner headers bent as `odd.py` says."""

    talk: int
    back: bool
    what: str


@dataclass(frozen=True, slots=True)
class Break:
    """A packet of a talk: a byte changed by `xor`, cut to `keep` parts of 64, or padded."""

    talk: int
    back: bool
    at: int
    xor: int
    keep: int
    pad: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Tens of seconds."""

    tens: int


@dataclass(frozen=True, slots=True)
class Rules:
    person: Person
    inward: bool
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Identity:
    """The groups of a guest are others now."""

    person: Person
    identity: int


@dataclass(frozen=True, slots=True)
class Learn:
    route: Cached


@dataclass(frozen=True, slots=True)
class Forget:
    person: Person


@dataclass(frozen=True, slots=True)
class Move:
    """The vNIC leaves the host, or is here again."""

    person: Person
    here: bool


Packets = Say | Shake | Scan | Piece | Complain | Local | Lie | Bend | Break
Changes = Wait | Rules | Identity | Learn | Forget | Move
Step = Packets | Changes

LINK_FRAMES: Final = (
    "arp router", "arp peer", "arp off link", "arp probe", "arp own", "arp reply", "arp other mac",
    "arp other ip", "arp reverse", "arp token ring", "ns peer", "ns router", "ns router local",
    "ns off link", "ns own", "ns dad", "ns dad peer", "ns dad local", "ns hops", "ns code",
    "ns option 0", "ns other mac", "ns nobody option", "ns nobody unicast", "ns multicast target",
    "ns other source", "ns unicast", "ns short", "ns local source", "na own", "na other",
    "na local", "ra", "redirect", "rs", "mld", "mdns", "mdns hop", "ping local router",
    "ping local", "udp local", "dhcp", "dhcp router", "dhcp6", "ping router", "ping router 6",
    "udp router", "udp router 6", "tcp router", "ping router piece", "ping router options",
    "timestamp router", "ping router extension", "na behind options", "ns to peer",
)  # fmt: skip
LIES: Final = (
    "mac", "ip", "group mac", "multicast", "limited broadcast", "broadcast", "reserved source",
    "reserved destination", "mapped destination", "local source", "ethertype", "vlan",
)  # fmt: skip
BENDS: Final = (
    "stranger", "vni", "unknown endpoint", "mac", "no flag I", "all flags", "reserved bits",
    "identity", "identity without G", "options", "piece", "later piece", "udp short", "udp long",
    "udp tiny", "total long", "total tiny", "congested", "congested not capable", "port",
    "other vtep", "checksum", "padding", "own source", "inner arp", "inner vlan", "outer vlan",
    "inner discovery", "inner local", "tcp", "gateway", "ipv6",
)  # fmt: skip

index: Final = st.integers(0, 3)
flags: Final = st.sampled_from(
    (SYN, SYN | ACK, ACK, ACK, ACK | 8, FIN | ACK, FIN | ACK, RST, RST | ACK, SYN | FIN, 0)
)
sizes: Final = st.sampled_from((0, 8, 8, 8, 9, 100, 1180, 1380, 1460, 1480))
hops: Final = st.sampled_from((64, 64, 64, 64, 64, 255, 2, 1, 0))
chains: Final = st.lists(st.sampled_from((0, 60, 60, 44, 43, 1043)), max_size=3).map(tuple)
says: Final = st.builds(
    Say, index, st.booleans(), flags, sizes, hops, st.sampled_from((0, 0, 2, 0xB9)),
)  # fmt: skip
rare_says: Final = st.builds(
    Say, index, st.booleans(), flags, st.just(3000), st.just(64), st.just(0),
    st.sampled_from((1200, 1430, 1440, 1460)),
)  # fmt: skip
extended: Final = st.builds(
    Say, index, st.booleans(), flags, st.just(8), hops, st.just(0), st.just(0), chains
)
pieces: Final = st.builds(
    Piece, index, st.booleans(), st.sampled_from((1, 2)),
    st.sampled_from((0, 0, 0, 8, 16, 24, 400)), st.sampled_from((8, 24, 24, 400)),
    st.sampled_from((True, True, False)), hops,
)  # fmt: skip
complaints: Final = st.builds(
    Complain, index, st.booleans(), st.sampled_from(("receiver",) * 6 + ("sender", "third")),
    st.integers(0, 4), st.sampled_from((999, 999, 999, 48, 28, 27, 19)),
    mostly(False, True), hops,
)  # fmt: skip
breaks: Final = st.builds(
    Break, index, st.booleans(), st.integers(0, 80), st.sampled_from((0, 1, 0x80, 0xFF)),
    st.sampled_from((64, 64, *range(16, 64, 3))), st.sampled_from((0, 0, 0, 6)),
)  # fmt: skip
here: Final = st.sampled_from(HERE)
one_step: Final[st.SearchStrategy[Step]] = weighted(
    (18, says),
    (5, st.builds(Shake, index)),
    (2, st.builds(Scan, index, st.integers(3, 14))),
    (1, rare_says),
    (2, extended),
    (6, pieces),
    (6, complaints),
    (5, st.builds(Local, here, st.sampled_from(LINK_FRAMES))),
    (3, st.builds(Lie, index, st.sampled_from(LIES))),
    (6, st.builds(Bend, index, st.booleans(), st.sampled_from(BENDS))),
    (4, breaks),
    (3, st.builds(Wait, st.sampled_from((1, 3, 6, 10, 400)))),
    (2, st.builds(Rules, here, st.booleans(), some_rules)),
    (1, st.builds(Identity, st.sampled_from(EVERYBODY), st.sampled_from(IDENTITIES))),
    (2, st.sampled_from(AWAY).flatmap(cached).map(Learn)),
    (1, st.builds(Forget, st.sampled_from(AWAY))),
    (1, st.builds(Move, here, st.sampled_from((False, True, True)))),
)
steps: Final = st.lists(one_step, min_size=16, max_size=32)
