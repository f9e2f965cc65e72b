"""Destinations that lately had no route: until one comes, or for a while, nobody asks again."""

from collections import OrderedDict

from achelous_shared.rsp_hash import Hashes
from achelous_vswitch.views import Views

_LIMIT = 65_536


class Negatives:
    """Named by (VNI, hash), at most ``limit`` of them, for ``keep_s`` seconds each.

    "No route" is true as of a revision, like an entry, so its VPC is in the views: what changes
    there is heard of, and no longer denied. Times are seconds of any one clock.
    """

    def __init__(self, views: Views, keep_s: float, limit: int = _LIMIT) -> None:
        self._views = views
        self._keep_s = keep_s
        self._limit = limit
        self._until: OrderedDict[tuple[int, int], float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def add(self, vni: int, value: int, as_of: int, now: float) -> None:
        """Remember a destination from now on; the oldest is forgotten if there are too many."""
        self._forget((vni, value))
        self._until[vni, value] = now + self._keep_s
        self._views.enter(vni, as_of)
        if len(self._until) > self._limit:
            self._forget(next(iter(self._until)))

    def holds(self, vni: int, value: int, now: float) -> bool:
        """Whether a destination had no route just now."""
        return self._until.get((vni, value), now) > now

    def expire(self, now: float) -> None:
        """Forget those whose time is over."""
        while self._until:
            oldest, until = next(iter(self._until.items()))
            if until > now:
                return
            self._forget(oldest)

    def changed(self, vni: int, hashes: Hashes) -> None:
        """These destinations of a VPC may have a route now."""
        if self._until:
            for value in hashes.tolist():
                self._forget((vni, value))

    def forget_vpc(self, vni: int) -> None:
        """Any destination of a VPC may have a route now."""
        for key in [key for key in self._until if key[0] == vni]:
            self._forget(key)

    def _forget(self, key: tuple[int, int]) -> None:
        if self._until.pop(key, None) is not None:
            self._views.leave(key[0])
