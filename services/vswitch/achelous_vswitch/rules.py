"""Rule sets in the packet path: one for each distinct content, shared by all ports that have it.

A rule set never changes: other rules are another set with another id and other words, so that a
packet sees the old rules or the new ones and no mixture.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from achelous_vswitch.classifier import Classifier, Rule, Rules, compile_rules, digest
from achelous_vswitch.dataplane import Array, Table
from achelous_vswitch.words import WordPool

NO_RULES: Final = 0
"""The id that stands for: allow nothing."""


class RuleSets:
    """Rule sets by content, counted by the ports that hold them.

    One that nobody holds rests for ``rest_s`` seconds, because a packet in flight may have read its
    id, and goes with the next `sweep`; its words are used again from then on.
    """

    def __init__(self, table: Table, words: Array, *, rest_s: float = 1.0) -> None:
        self._table = table
        self._words = words
        self._pool = WordPool(len(words))
        self._rest_s = rest_s
        self._ids: dict[bytes, int] = {}
        self._digests: dict[int, bytes] = {}
        self._known: dict[tuple[Rule, ...], bytes] = {}
        self._runs: dict[int, tuple[int, int]] = {}
        self._holders: dict[int, int] = {}
        self._idle_since: dict[int, float] = {}
        self._next = 1

    def __len__(self) -> int:
        """Sets in the packet path."""
        return len(self._ids)

    def __contains__(self, set_id: int) -> bool:
        return set_id == NO_RULES or set_id in self._runs

    def adopt(self, now: float) -> None:
        """Take over the sets that an agent before this one left."""
        keys, values = self._table.lookup_batch_all()
        for key, value in zip(keys.tolist(), values, strict=True):
            run = int(value["at"]), _size({name: int(value[name]) for name in _COUNTS})
            try:
                self._pool.claim(*run)
            except ValueError:  # cut off in the middle of a change, or not ours to understand
                self._table.delete(np.uint32(key))
                continue
            self._keep(key, value["digest"].tobytes(), run)
            self._idle_since[key] = now
            self._next = max(self._next, key + 1)

    def id_of(self, rules: Rules) -> int | None:
        """The id of the set with this content, if there is one."""
        return self._ids.get(self._digest(rules)) if rules.rules else NO_RULES

    def hold(self, rules: Rules) -> int:
        """The id of the set with this content, made if need be.

        Raises OSError if there is no room.
        """
        set_id = self.id_of(rules)
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
            gone = self._digests.pop(set_id)
            if self._ids.get(gone) == set_id:
                del self._ids[gone]
            self._pool.give_back(*self._runs.pop(set_id))
        if over:
            self._known = {rules: d for rules, d in self._known.items() if d in self._ids}

    def _digest(self, rules: Rules) -> bytes:
        found = self._known.get(rules.rules)
        if found is None:
            found = self._known[rules.rules] = digest(rules)
        return found

    def _keep(self, set_id: int, content: bytes, run: tuple[int, int]) -> None:
        self._digests[set_id] = content
        self._ids.setdefault(content, set_id)
        self._runs[set_id] = run

    def _create(self, rules: Rules) -> int:
        compiled = compile_rules(rules)
        at, count = self._pool.take(len(compiled.words)), len(compiled.words)
        self._words[at : at + count] = compiled.words
        set_id = self._next
        try:
            self._table.update(np.uint32(set_id), record(self._table.value_dtype, at, compiled))
        except OSError:
            self._pool.give_back(at, count)
            raise
        self._next += 1
        self._keep(set_id, compiled.digest, (at, count))
        return set_id


_COUNTS: Final = ("rules", "services", "prefixes", "identities")


def record(dtype: np.dtype[np.void], at: int, compiled: Classifier) -> Array:
    """C's ``ach_ruleset`` of a classifier whose words lie from ``at`` on."""
    made = np.zeros((), dtype)
    made["at"] = at
    for name, count in compiled.counts.items():
        made[name] = count
    made["digest"] = np.frombuffer(compiled.digest, np.uint8)
    return made


def _size(counts: Mapping[str, int]) -> int:
    """Words of a classifier; see `ach_ruleset`."""
    rules, services, prefixes, identities = (counts[name] for name in _COUNTS)
    vectors = 1 + services + prefixes + 3 + identities
    return services + 2 * prefixes + identities + vectors * (-(-rules // 64))
