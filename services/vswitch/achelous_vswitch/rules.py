"""Rule sets in the packet path: one for each distinct content, shared by all ports that have it.

A rule set never changes: other rules are another set with another id, so that a packet sees the
old rules or the new ones and no mixture.
"""

import numpy as np

from achelous_vswitch.dataplane import Array, Table
from achelous_vswitch.plan import ALLOW_NONE, Rule, Rules

NO_RULES = 0
"""The id that stands for: allow nothing."""


class RuleSets:
    """Rule sets by content, counted by the ports that hold them.

    One that nobody holds rests for ``rest_s`` seconds, because a packet in flight may have read its
    id, and goes with the next `sweep`.
    """

    def __init__(self, table: Table, *, rest_s: float = 1.0) -> None:
        self._table = table
        self._rest_s = rest_s
        self._ids: dict[Rules, int] = {}
        self._contents: dict[int, Rules] = {NO_RULES: ALLOW_NONE}
        self._holders: dict[int, int] = {}
        self._idle_since: dict[int, float] = {}
        self._next = 1

    @property
    def max_rules(self) -> int:
        """Rules that one set can hold."""
        return int(self._table.value_dtype["rules"].shape[0])

    def __len__(self) -> int:
        """Sets in the packet path."""
        return len(self._ids)

    def adopt(self, now: float) -> None:
        """Take over the sets that an agent before this one left."""
        keys, values = self._table.lookup_batch_all()
        for key, value in zip(keys.tolist(), values, strict=True):
            rules = _rules(value)
            self._contents[key] = rules
            self._idle_since[key] = now
            self._ids.setdefault(rules, key)
            self._next = max(self._next, key + 1)

    def content(self, set_id: int) -> Rules | None:
        """What is in a set, or None if there is no such set."""
        return self._contents.get(set_id)

    def hold(self, rules: Rules) -> int:
        """The id of the set with this content, made if need be. Raises OSError if it is full."""
        set_id = self._ids.get(rules) if rules else NO_RULES
        if set_id is None:
            set_id = self._create(rules)
        self.hold_again(set_id)
        return set_id

    def hold_again(self, set_id: int) -> None:
        """Count one more holder of a set that is there."""
        if set_id == NO_RULES:
            return
        self._holders[set_id] = self._holders.get(set_id, 0) + 1
        self._idle_since.pop(set_id, None)

    def release(self, set_id: int, now: float) -> None:
        """Count one holder less."""
        if set_id == NO_RULES:
            return
        self._holders[set_id] -= 1
        if not self._holders[set_id]:
            del self._holders[set_id]
            self._idle_since[set_id] = now

    def sweep(self, now: float) -> None:
        """Remove sets that nobody has held for long enough."""
        over = [i for i, since in self._idle_since.items() if since <= now - self._rest_s]
        for set_id in over:
            self._table.delete(np.uint32(set_id))
            del self._idle_since[set_id]
            rules = self._contents.pop(set_id)
            if self._ids.get(rules) == set_id:
                del self._ids[rules]

    def _create(self, rules: Rules) -> int:
        set_id = self._next
        self._table.update(np.uint32(set_id), _record(rules, self._table))
        self._next += 1
        self._ids[rules] = set_id
        self._contents[set_id] = rules
        return set_id


def _record(rules: Rules, table: Table) -> Array:
    record = np.zeros((), table.value_dtype)
    record["count"] = len(rules)
    for place, rule in zip(record["rules"], sorted(rules), strict=False):
        place["remote"] = np.frombuffer(rule.remote, np.uint8)
        place["remote_len"] = rule.remote_len
        place["proto"] = rule.protocol
        place["port_min"] = rule.port_min
        place["port_max"] = rule.port_max
    return record


def _rules(record: np.void) -> Rules:
    return frozenset(
        Rule(
            rule["remote"].tobytes(),
            int(rule["remote_len"]),
            int(rule["proto"]),
            int(rule["port_min"]),
            int(rule["port_max"]),
        )
        for rule in record["rules"][: int(record["count"])]
    )
