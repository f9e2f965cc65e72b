"""What following counted since its start."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

FOLLOWED: Final[Mapping[str, str]] = {
    "deltas_applied": "route deltas applied",
    "deltas_duplicate": "route deltas that were applied already",
    "deltas_gap": "route deltas that showed a gap",
    "deltas_buffered": "route deltas kept until a snapshot was read",
    "snapshots": "VPCs read whole",
    "snapshot_failures": "VPCs that could not be read whole, and were tried again",
    "bad_messages": "messages on the bus that were garbage or of an unknown version",
}
"""What counters of `FollowStats` count, but for ``table_full``: a table may take what fits."""


@dataclass(slots=True)
class FollowStats:
    """Counters, written where things happen and read by metrics."""

    deltas_applied: int = 0
    deltas_duplicate: int = 0
    deltas_gap: int = 0
    deltas_buffered: int = 0
    snapshots: int = 0
    snapshot_failures: int = 0
    bad_messages: int = 0
    table_full: int = 0
