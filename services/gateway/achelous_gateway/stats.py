"""What the gateway counted since its start."""

from dataclasses import dataclass


@dataclass(slots=True)
class Stats:
    """Counters, written where things happen and read by metrics and `show`."""

    deltas_applied: int = 0
    deltas_duplicate: int = 0
    deltas_gap: int = 0
    deltas_buffered: int = 0
    snapshots: int = 0
    snapshot_failures: int = 0
    bad_messages: int = 0
    table_full: int = 0
    rsp_requests: int = 0
    rsp_entries: int = 0
    rsp_misses: int = 0
    rsp_garbage: int = 0
    rsp_watches: int = 0
    rsp_changes: int = 0
    rsp_rechecks: int = 0
    rsp_pushed: int = 0
