"""Keeping the cache true, either way: by what changed (`delta.py`), or entry by entry.

Entry by entry is the paper's way, section 4.3: a scan every 50 ms, a lifetime of 100 ms, and the
answer updates the entry, deletes it, or leaves it alone. It serves too while no gateway is known
that can say what changed.
"""

import asyncio
import time
from typing import Final

import numpy as np

from achelous_shared import rsp
from achelous_vswitch.dataplane import Array
from achelous_vswitch.delta import Delta
from achelous_vswitch.fc import ForwardingCache
from achelous_vswitch.fc_hashes import Slots
from achelous_vswitch.metrics import Metrics
from achelous_vswitch.negatives import Negatives
from achelous_vswitch.rsp_client import RspClient
from achelous_vswitch.settings import VswitchSettings
from achelous_vswitch.verdicts import Question, Verdicts

_IN_FLIGHT: Final = 8
_IDLE_EVERY_S: Final = 1.0


class Reconciler:
    """Scans the cache every ``fc_scan_s`` seconds."""

    def __init__(
        self,
        cache: ForwardingCache,
        negatives: Negatives,
        config: Array,
        client: RspClient,
        settings: VswitchSettings,
        metrics: Metrics,
    ) -> None:
        self._cache = cache
        self._negatives = negatives
        self._client = client
        self._settings = settings
        self._metrics = metrics
        self._verdicts = Verdicts(cache, config, metrics)
        self._delta = Delta(cache, negatives, client, self._verdicts, metrics)
        self._asking = np.zeros(len(cache.entries), np.bool_)
        self._asked: list[Slots] = []
        self._in_flight = 0
        self._ticking: set[int] = set()

    async def run(self) -> None:
        """Scan until cancelled."""
        next_idle = 0.0
        async with asyncio.TaskGroup() as tasks:
            while True:
                now = time.monotonic()
                if now >= next_idle:
                    self.drop_idle()
                    next_idle = now + _IDLE_EVERY_S
                self._negatives.expire(now)
                if self._settings.reconcile == "delta":
                    self._start_ticks(tasks)
                else:
                    self._scan(tasks)
                await asyncio.sleep(self._settings.fc_scan_s)

    def _start_ticks(self, tasks: asyncio.TaskGroup) -> None:
        """Ask each group of gateways what changed, unless it has yet to answer the last time.

        So one whose gateways are all silent holds up none but its own VPCs.
        """
        vnis = np.array(list(self._cache.views), np.uint32)
        groups = self._client.groups_of(vnis)
        for group in set(groups.tolist()) - self._ticking:
            self._ticking.add(group)
            tasks.create_task(self._tick(group, vnis[groups == group].tolist(), tasks))

    async def _tick(self, group: int, vnis: list[int], tasks: asyncio.TaskGroup) -> None:
        try:
            if not await self._delta.tick(group, vnis):
                self._scan(tasks)
        finally:
            self._ticking.discard(group)

    def _scan(self, tasks: asyncio.TaskGroup) -> None:
        self.begin_scan()
        while self._in_flight < _IN_FLIGHT and (question := self.next_question()):
            self._in_flight += 1
            tasks.create_task(self._ask_on(question))

    def drop_idle(self) -> None:
        """Forget what no packet used for ``fc_idle_s``."""
        idle = self._cache.idle(time.monotonic_ns() - int(self._settings.fc_idle_s * 1e9))
        self._cache.remove(idle)
        self._metrics.removed.labels("idle").inc(len(idle))

    def begin_scan(self) -> None:
        """What was asked about may be asked about again, if it is still due."""
        for slots in self._asked:
            self._asking[slots] = False
        self._asked.clear()

    def next_question(self) -> Question | None:
        """The next batch of unconfirmed entries of one group of gateways; None: no more.

        Those first that wait longest; each entry is asked about once in a scan.
        """
        now_ns = time.monotonic_ns()
        due = self._cache.unconfirmed(now_ns - int(self._settings.fc_lifetime_s * 1e9))
        due = due[~self._asking[due]]
        if not len(due):
            return None
        groups = self._client.groups_of(self._cache.entries["vni"][due])
        due = due[groups == groups[0]]
        if len(due) > rsp.MAX_ENTRIES:
            oldest = np.argpartition(self._cache.checked_ns(due), rsp.MAX_ENTRIES)
            due = due[oldest[: rsp.MAX_ENTRIES]]
        self._asking[due] = True
        return Question(due, self._cache.entries["generation"][due], now_ns)

    async def _ask_on(self, question: Question | None) -> None:
        """Ask, and then on until nothing is due."""
        try:
            while question is not None:
                await self._ask(question)
                question = self.next_question()
        finally:
            self._in_flight -= 1

    async def _ask(self, question: Question) -> None:
        try:
            entries = self._cache.entries
            request = rsp.requests(entries["vni"][question.slots], entries["ip"][question.slots])
            replies = await self._client.ask(request)
            if replies is not None:
                self.take(question, replies)
        finally:
            self._asked.append(question.slots)

    def take(self, question: Question, replies: rsp.Entries) -> None:
        """See `Verdicts.take`."""
        self._verdicts.take(question, replies)
