"""What following counted since its start."""

from dataclasses import dataclass


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
