"""Sessions that have ended in silence: removed slice by slice, so that the table stays small.

The packet path takes a session that was idle for its timeout as good as gone, and writes over it.
The table is read and deleted from in two steps, between which a flow may come back to life; what
it would lose then is one entry, that is, one more look at the rules. To make that rarer still,
an entry goes only `MARGIN_S` after its timeout: a flow with a habit of pausing for about as long as
the timeout is never hit.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from achelous_vswitch.dataplane import Array, Dataplane
from achelous_vswitch.metrics import Metrics
from achelous_vswitch.settings import VswitchSettings

MARGIN_S: Final = 2.0

ICMP, TCP, UDP = 1, 6, 17
INITIATOR_1, REPLIED, CLOSING = 1, 2, 4
"""C's enum ach_session_flags."""
HOP_LOCAL: Final = 0x8000_0000

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Idle times in nanoseconds, those of `ach_vswitch_config`."""

    tcp_established_ns: int
    tcp_opening_ns: int
    udp_ns: int
    icmp_ns: int

    @classmethod
    def of(cls, settings: VswitchSettings) -> "Timeouts":
        """From the settings' seconds."""
        return cls(
            int(settings.tcp_established_s * 1e9),
            int(settings.tcp_opening_s * 1e9),
            int(settings.udp_s * 1e9),
            int(settings.icmp_s * 1e9),
        )


def expired(keys: Array, sessions: Array, timeouts: Timeouts, now_ns: int) -> Mask:
    """Which sessions (n,) were idle for longer than their timeout and the margin."""
    protocol, flags = keys["proto"], sessions["flags"]
    established = (flags & REPLIED != 0) & (flags & CLOSING == 0)
    allowed = np.full(len(keys), timeouts.udp_ns, np.int64)
    allowed[protocol == ICMP] = timeouts.icmp_ns
    allowed[protocol == TCP] = timeouts.tcp_opening_ns
    allowed[(protocol == TCP) & established] = timeouts.tcp_established_ns
    idle = now_ns - sessions["last_seen_ns"].astype(np.int64)
    return np.asarray(idle > allowed + int(MARGIN_S * 1e9))


def orphaned(sessions: Array, ports: Array) -> Mask:
    """Which sessions (n,) have no end on this host any more, and had one."""
    local = sessions["acl_port"] != 0
    generation = ports["generation"][sessions["acl_port"]]
    hop = sessions["hop"]
    to_port = hop["slot"] == (sessions["acl_port"] | np.uint32(HOP_LOCAL))
    here = local & (generation % 2 == 1) & ~(to_port & (hop["generation"] != generation))
    return np.asarray(local.any(axis=1) & ~here.any(axis=1))


class SessionCollector:
    """Looks at ``session_slice`` sessions every ``session_scan_s`` seconds."""

    def __init__(self, dataplane: Dataplane, settings: VswitchSettings, metrics: Metrics) -> None:
        self._dataplane = dataplane
        self._settings = settings
        self._metrics = metrics
        self._timeouts = Timeouts.of(settings)
        self._cursor: bytes | None = None
        self._seen = 0
        self.total = 0
        """Sessions that the last pass over the whole table found alive."""

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
            self._metrics.sessions_expired.inc(sessions.delete_batch(keys[dead]))
        self._seen += int((~dead).sum())
        if self._cursor is None:
            self.total, self._seen = self._seen, 0
