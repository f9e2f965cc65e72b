"""What the gateway counted since its start."""

from dataclasses import dataclass

from achelous_shared.route_following.stats import FollowStats


@dataclass(slots=True)
class Stats(FollowStats):
    """Counters, written where things happen and read by metrics and `show`."""

    rsp_requests: int = 0
    rsp_entries: int = 0
    rsp_misses: int = 0
    rsp_garbage: int = 0
    rsp_watches: int = 0
    rsp_changes: int = 0
    rsp_rechecks: int = 0
    rsp_pushed: int = 0
