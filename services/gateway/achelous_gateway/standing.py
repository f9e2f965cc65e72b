"""Whether this gateway may vouch for its tables."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

_OUTAGE_S: Final = 3.0
"""Without the bus for longer than this, what was missed may be more than the streams still hold."""


class Standing:
    """In step: all tables were compared with the controller's, and the bus was there ever since.

    A single VPC that is read again after a gap does not end that: the gateway relays all others,
    its own entries stay as they were, and what it would do to withdraw from service, sending its
    share of every VPC to its peers, harms more than an entry that is late for the length of one
    read. It does not report the new revision before it has it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_connected = float("-inf")
        self._connected = False
        self.compare = asyncio.Event()
        """Set when the tables should be compared again without delay."""
        self.settled = asyncio.Event()
        """Set when the tables may be vouched for anew."""
        self.whole = False
        """The tables were complete once."""
        self.synced = False
        """They were compared since the bus was last away for long."""

    def observe(self, connected: bool) -> None:
        """Tell it often whether the bus is there."""
        if connected:
            if not self._connected:
                self.compare.set()
            self._last_connected = self._clock()
        elif self.away():
            self.synced = False
        self._connected = connected

    def compared(self) -> None:
        """All tables are as the controller's."""
        self.whole = True
        self.synced = not self.away()
        self.settled.set()

    def away(self) -> bool:
        """The bus has not been there for too long."""
        return self._clock() - self._last_connected > _OUTAGE_S

    def in_step(self) -> bool:
        """Whether the tables may be vouched for."""
        return self.synced and not self.away()
