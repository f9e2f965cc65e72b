"""Sessions that have ended: removed slice by slice, so that the table stays small.

The packet path takes a session that was idle for its timeout as good as gone, writes over it, and
makes room by itself where it must; here what is over goes without anyone waiting for it. The
table is read and deleted from in two steps, between which a flow may come back to life; what it
would lose then is one entry, that is, one more look at the rules. To make that rarer still, an
entry goes only `MARGIN_S` after its timeout: a flow with a habit of pausing for about as long as
the timeout is never hit.
"""

import asyncio
import time
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from achelous_vswitch.dataplane import Array, Dataplane
from achelous_vswitch.metrics import Metrics
from achelous_vswitch.settings import VswitchSettings

MARGIN_S: Final = 2.0

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
INITIATOR_1, REPLIED, FIN_0, FIN_1, RST_0, RST_1, ESTABLISHED, ARRIVED = (1 << n for n in range(8))
"""C's enum ach_session_flags."""
HOP_LOCAL: Final = 0x8000_0000

Mask = npt.NDArray[np.bool_]


class State(IntEnum):
    """C's enum ach_session_state."""

    SYN_SENT = 0
    SYN_RECEIVED = 1
    ESTABLISHED = 2
    CLOSING = 3
    CLOSED = 4
    UDP_SENT = 5
    UDP_REPLIED = 6
    ICMP = 7
    OTHER = 8


def timeouts_ns(settings: VswitchSettings) -> npt.NDArray[np.int64]:
    """Idle times by state, as `ach_vswitch_config` has them."""
    seconds = {
        State.SYN_SENT: settings.tcp_opening_s,
        State.SYN_RECEIVED: settings.tcp_answered_s,
        State.ESTABLISHED: settings.tcp_established_s,
        State.CLOSING: settings.tcp_closing_s,
        State.CLOSED: settings.tcp_closed_s,
        State.UDP_SENT: settings.udp_opening_s,
        State.UDP_REPLIED: settings.udp_s,
        State.ICMP: settings.icmp_s,
        State.OTHER: settings.other_s,
    }
    return np.array([seconds[state] * 1e9 for state in State], np.int64)


def _tcp_state(flags: int) -> State:
    if flags & (RST_0 | RST_1) or (flags & FIN_0 and flags & FIN_1):
        return State.CLOSED
    if flags & (FIN_0 | FIN_1):
        return State.CLOSING
    if flags & ESTABLISHED:
        return State.ESTABLISHED
    return State.SYN_RECEIVED if flags & REPLIED else State.SYN_SENT


_TCP_STATES: Final = np.array([_tcp_state(flags) for flags in range(256)], np.uint8)


def states(keys: Array, sessions: Array) -> npt.NDArray[np.uint8]:
    """The `State` of each session (n,): `session_state` of the packet path."""
    protocol, flags = keys["proto"], sessions["flags"]
    found = np.full(len(keys), State.OTHER, np.uint8)
    found[(protocol == ICMP) | (protocol == ICMPV6)] = State.ICMP
    found[protocol == UDP] = State.UDP_SENT
    found[(protocol == UDP) & (flags & REPLIED != 0)] = State.UDP_REPLIED
    of_tcp = protocol == TCP
    found[of_tcp] = _TCP_STATES[flags[of_tcp] & 0xFF]
    return found


def expired(keys: Array, sessions: Array, timeouts: npt.NDArray[np.int64], now_ns: int) -> Mask:
    """Which sessions (n,) were idle for longer than their timeout and the margin."""
    idle = now_ns - sessions["last_seen_ns"].astype(np.int64)
    return np.asarray(idle > timeouts[states(keys, sessions)] + int(MARGIN_S * 1e9))


def orphaned(sessions: Array, ports: Array) -> Mask:
    """Which sessions (n,) have no end on this host any more, and had one."""
    local = sessions["acl_port"] != 0
    generation = ports["generation"][sessions["acl_port"]]
    hop = sessions["hop"]
    to_port = hop["slot"] == (sessions["acl_port"] | np.uint32(HOP_LOCAL))
    here = local & (generation % 2 == 1) & ~(to_port & (hop["generation"] != generation))
    return np.asarray(local.any(axis=1) & ~here.any(axis=1))


def by_owner(sessions: Array, slots: int) -> npt.NDArray[np.int64]:
    """How many sessions (n,) each port slot has opened and has had opened to it (slots, 2)."""
    arrived = (sessions["flags"] & ARRIVED != 0).astype(np.int64)
    of = np.minimum(sessions["owner"].astype(np.int64), slots - 1) * 2 + arrived
    return np.bincount(of, minlength=2 * slots).reshape(slots, 2)


class SessionCounts:
    """The packet path's count of each vNIC's sessions, told what is removed here.

    Its additions and ours may overwrite each other, and an agent may die between removing and
    telling. So each pass over the table counts the sessions that were there when it began, and
    raises `closed` to what that says: a count is never wrong for longer than two passes.
    """

    def __init__(self, counts: Array) -> None:
        self._counts = counts
        self._began_ns = time.monotonic_ns()
        self._opened = counts["opened"].astype(np.int64)
        self._alive = np.zeros_like(self._opened)

    def open(self) -> npt.NDArray[np.int64]:
        """Sessions by slot and kind (slots, 2)."""
        opened, closed = (self._counts[name].astype(np.int64) for name in ("opened", "closed"))
        return opened - closed

    def removed(self, sessions: Array) -> None:
        """These (n,) are gone."""
        self._counts["closed"] += by_owner(sessions, len(self._counts)).astype(np.uint64)

    def seen(self, sessions: Array) -> None:
        """These (n,) are alive; each is seen once in a pass."""
        old = sessions["created_ns"].astype(np.int64) < self._began_ns
        self._alive += by_owner(sessions[old], len(self._counts))

    def pass_over(self) -> None:
        """The pass has seen all sessions: correct the counts, and begin the next."""
        closed = np.maximum(self._opened - self._alive, self._counts["closed"].astype(np.int64))
        self._counts["closed"] = closed.astype(np.uint64)
        self._began_ns = time.monotonic_ns()
        self._opened = self._counts["opened"].astype(np.int64)
        self._alive[:] = 0


class SessionCollector:
    """Looks at ``session_slice`` sessions every ``session_scan_s`` seconds."""

    def __init__(self, dataplane: Dataplane, settings: VswitchSettings, metrics: Metrics) -> None:
        self._dataplane = dataplane
        self._settings = settings
        self._metrics = metrics
        self._timeouts = timeouts_ns(settings)
        self._counts = SessionCounts(dataplane.session_counts)
        self._cursor: bytes | None = None
        self._seen = 0
        self.total = 0
        """Sessions that the last pass over the whole table found alive."""

    @property
    def reclaimed(self) -> int:
        """Sessions that the packet path removed itself, for want of room."""
        return int(self._dataplane.session_hands["reclaimed"][0])

    async def run(self) -> None:
        """Collect until cancelled."""
        while True:
            self.collect_slice()
            await asyncio.sleep(self._settings.session_scan_s)

    def collect_slice(self) -> None:
        """Look at one slice, and remove what is dead in it."""
        sessions = self._dataplane.sessions
        keys, values, self._cursor = sessions.scan(self._cursor, self._settings.session_slice)
        dead = expired(keys, values, self._timeouts, time.monotonic_ns())
        dead |= orphaned(values, self._dataplane.ports)
        if dead.any():
            removed = sessions.delete_batch(keys[dead])
            self._metrics.sessions_expired.inc(removed)
            if removed == dead.sum():  # else the packet path removed some: the pass will tell
                self._counts.removed(values[dead])
        self._counts.seen(values[~dead])
        self._seen += int((~dead).sum())
        if self._cursor is None:
            self.total, self._seen = self._seen, 0
            self._counts.pass_over()
