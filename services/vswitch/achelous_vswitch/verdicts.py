"""Acting on what gateways answer about entries that are held."""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from achelous_shared import rsp
from achelous_vswitch import answers
from achelous_vswitch.dataplane import Array
from achelous_vswitch.fc import ForwardingCache
from achelous_vswitch.fc_hashes import Slots
from achelous_vswitch.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Question:
    """Slots that are asked about, and their generations when they were."""

    slots: Slots
    generations: Array
    asked_ns: int
    ages_ms: npt.NDArray[np.uint16] | None = None
    """How long before ``asked_ns`` a gateway had each change, where that is known."""


class Verdicts:
    """Updates, deletes, or leaves alone."""

    def __init__(self, cache: ForwardingCache, config: Array, metrics: Metrics) -> None:
        self._cache = cache
        self._config = config
        self._metrics = metrics

    def take(self, question: Question, replies: rsp.Entries) -> None:
        """Act on the replies to a question, but for entries that were replaced since."""
        current = self._cache.entries["generation"][question.slots] == question.generations
        slots, replies = question.slots[current], replies[current]
        held = self._cache.entries[slots]
        verdict = answers.judge(held, replies, int(self._config["vtep"][0]))
        same = slots[verdict.same]
        self._cache.confirm(same, replies["revision"][verdict.same], question.asked_ns)
        self._metrics.confirmed.inc(len(same))
        if verdict.changed.any():
            self._change(slots[verdict.changed], replies[verdict.changed], question.asked_ns)
        self._cache.remove(slots[verdict.gone])
        if question.ages_ms is not None:
            self._observe(question, question.ages_ms[current][verdict.changed | verdict.gone])
        self._metrics.removed.labels("no route").inc(int(verdict.gone.sum()))

    def _change(self, slots: Slots, replies: rsp.Entries, asked_ns: int) -> None:
        self._cache.make_room()
        for slot, (vni, ip, route) in zip(slots.tolist(), answers.routes(replies), strict=True):
            if not self._cache.put(vni, ip, route, asked_ns):
                self._cache.remove(np.array([slot]))  # a gateway knows; a stale entry does not
            self._metrics.changed.inc()

    def _observe(self, question: Question, ages_ms: npt.NDArray[np.uint16]) -> None:
        """Note how late changes were acted on: their ages when we asked, and the time since."""
        since_s = (time.monotonic_ns() - question.asked_ns) / 1e9
        for age in ages_ms.tolist():
            self._metrics.late_s.observe(age / 1e3 + since_s)
