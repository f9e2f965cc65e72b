"""Sessions: what a host remembers of a flow, and until when (decisions 0002 and 0008)."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from model.reading import Drop, Ports
from model.wire import ICMP, ICMPV6, TCP, UDP, Address
from model.world import Route, Settings, VNic, sixteen

FIN, SYN, RST, ACK = 1, 2, 4, 16
HANDSHAKE: Final = 1.0
"""Seconds that a half-open session is left alone."""


EXCHANGE: Final = 2.0
"""Seconds within which UDP that was no more than an exchange was over."""


class Key(NamedTuple):
    """Both directions of a flow; its sides in the order of (address, port)."""

    vni: int
    protocol: int
    sides: tuple[tuple[bytes, int], tuple[bytes, int]]


def key_of(vni: int, source: Address, to: Address, ports: Ports) -> tuple[Key, int]:
    """The key, and the side that the sender is."""
    sender, receiver = (sixteen(source), ports.sport), (sixteen(to), ports.dport)
    if receiver < sender:
        return Key(vni, ports.protocol, (receiver, sender)), 1
    return Key(vni, ports.protocol, (sender, receiver)), 0


@dataclass(frozen=True, slots=True)
class Here:
    """The next hop is a vNIC of this host, as it was then."""

    vnic: VNic
    generation: int

    @property
    def stands(self) -> bool:
        return self.vnic.generation == self.generation


@dataclass(slots=True)
class Session:
    """One flow. Lists are by side."""

    initiator: int
    owner: int
    arrived: bool
    created: float
    last_seen: float = 0.0
    replied: bool = False
    established: bool = False
    fins: set[int] = field(default_factory=set)
    resets: set[int] = field(default_factory=set)
    hops: list[Here | Route | None] = field(default_factory=lambda: [None, None])
    admitted: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0), (0, 0)])
    """Slot of the local vNIC, and the version of its rules that allowed it; (0, 0): not local."""
    identities: list[int] = field(default_factory=lambda: [0, 0])
    """Of each side, as the other was told when it was admitted."""
    packets: list[int] = field(default_factory=lambda: [0, 0])
    bytes: list[int] = field(default_factory=lambda: [0, 0])

    def state(self, protocol: int) -> str:
        if protocol == UDP:
            return "UDP_REPLIED" if self.replied else "UDP_SENT"
        if protocol in (ICMP, ICMPV6):
            return "ICMP"
        if protocol != TCP:
            return "OTHER"
        if self.resets or len(self.fins) == 2:
            return "CLOSED"
        if self.fins:
            return "CLOSING"
        if self.established:
            return "ESTABLISHED"
        return "SYN_RECEIVED" if self.replied else "SYN_SENT"

    def half_open(self, protocol: int) -> bool:
        if protocol == TCP:
            return self.state(TCP) in ("SYN_SENT", "SYN_RECEIVED")
        return not self.replied

    def idle(self, protocol: int, now: float, settings: Settings) -> bool:
        return now - self.last_seen > settings.timeouts[self.state(protocol)]

    def was_exchange(self, protocol: int, now: float) -> bool:
        """A question and its answer by UDP, and nothing since."""
        brief = self.last_seen - self.created < EXCHANGE
        return self.state(protocol) == "UDP_REPLIED" and brief and now - self.last_seen > HANDSHAKE

    def saw(self, side: int, protocol: int, tcp_flags: int, size: int, now: float) -> None:
        """A packet of that side passed."""
        if protocol == TCP:
            self._saw_tcp(side, tcp_flags)
        self.replied |= side != self.initiator
        self.last_seen = now
        self.packets[side] += 1
        self.bytes[side] += size

    def _saw_tcp(self, side: int, flags: int) -> None:
        if flags & RST:
            self.resets.add(side)
            return
        if not flags & SYN:
            self.resets.discard(side)  # no real stack goes on after its own reset
            self.established |= side != self.initiator or self.replied
        if flags & FIN:
            self.fins.add(side)


def begins(protocol: int, tcp_flags: int) -> bool:
    """A connection's first packet."""
    return protocol == TCP and tcp_flags & (SYN | ACK) == SYN


def first(candidates: list[Key]) -> Key | None:
    return candidates[0] if candidates else None


@dataclass(slots=True)
class Table:
    """The sessions of a host, with room for so many, and who is charged for them."""

    settings: Settings
    choose: Callable[[list[Key]], Key | None] = first
    """Which of those that may go makes room; None: it was not found in the few looks that a packet
    has. How they are looked for is the programs' own matter."""
    sessions: dict[Key, Session] = field(default_factory=dict)
    made: int = 0
    reclaimed: int = 0
    opened: Counter[tuple[int, bool]] = field(default_factory=Counter)
    closed: Counter[tuple[int, bool]] = field(default_factory=Counter)
    """By slot of the owner, and whether others opened them to it."""

    def find(self, key: Key, tcp_flags: int, now: float) -> Session | None:
        """The flow's session, unless it is over."""
        session = self.sessions.get(key)
        if session is None or session.idle(key.protocol, now, self.settings):
            return None
        ending = session.fins or session.resets
        return None if ending and begins(key.protocol, tcp_flags) else session

    def remove(self, key: Key) -> None:
        session = self.sessions.pop(key)
        self.closed[session.owner, session.arrived] += 1

    def enter(self, key: Key, session: Session, limit: int, now: float) -> None:
        """A new session, in the place of one that is over; others make room if they must."""
        if key in self.sessions:
            self.remove(key)
        who = (session.owner, session.arrived)
        held = self.opened[who] - self.closed[who]
        if limit and held >= limit and not self._reclaim(who, now):
            raise Drop("SESSION_LIMIT")
        if len(self.sessions) >= self.settings.session_room and not self._reclaim(None, now):
            raise Drop("SESSION_TABLE_FULL")
        self.sessions[key] = session
        self.opened[who] += 1
        self.made += 1

    def _reclaim(self, who: tuple[int, bool] | None, now: float) -> bool:
        """Removes one that may go; `who`: only one of theirs."""
        key = self.choose([key for key in self.sessions if self._may_go(key, who, now)])
        if key is None:
            return False
        self.remove(key)
        self.reclaimed += 1
        return True

    def _may_go(self, key: Key, who: tuple[int, bool] | None, now: float) -> bool:
        session, protocol = self.sessions[key], key.protocol
        if who is not None and who != (session.owner, session.arrived):
            return False
        if session.half_open(protocol) and now - session.last_seen > HANDSHAKE:
            return True
        if who is not None and session.was_exchange(protocol, now):
            return True
        return session.state(protocol) == "CLOSED" or session.idle(protocol, now, self.settings)
