"""Moves instances to ACTIVE, ERROR or out, by what gateways and hosts report. The leader's."""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.programming import outbox, records
from achelous_controller.programming.metrics import Metrics
from achelous_controller.programming.observer import Observer
from achelous_controller.programming.pending import Pending, PendingSet
from achelous_controller.programming.plan import Observed, Plan, plan
from achelous_controller.programming.sql import autocommit

log = logging.getLogger(__name__)

_TICK_S: Final = 1.0
_TICK_PER_INSTANCE_S: Final = 50e-6
"""Ten times what it takes to compare one: a million take a tenth of this process."""
_ROWS: Final = 5000
"""Instances of one statement: some 50 ms of the database's time, and few enough of ours."""

T = TypeVar("T")


class Progress:
    """Holds what is pending: read from the database at the start, told by `published`, and compared
    with the database each second.
    """

    def __init__(
        self, engine: AsyncEngine, observer: Observer, metrics: Metrics, building_timeout_s: float
    ) -> None:
        self._engine = engine
        self._autocommit = autocommit(engine)
        self._observer = observer
        self._metrics = metrics
        self._building_timeout_s = building_timeout_s
        self._fresh: set[int] = set()  # VNIs of what was published since the last look
        self.pending = PendingSet()

    def published(self, instances: Sequence[Pending]) -> None:
        """Take instances whose routes were just published."""
        for instance in instances:
            self.pending.put(instance)
            self._fresh.update([vnic.vni for vnic in instance.vnics])
        self._observer.moved.set()

    async def run(self) -> None:
        """Follow the reports until cancelled. Fails when the database does."""
        while True:
            began = time.monotonic()
            await self._tick()
            took = time.monotonic() - began
            due = began + max(_TICK_S, 5 * took, len(self.pending) * _TICK_PER_INSTANCE_S)
            while (left := due - time.monotonic()) > 0 and await self._moved(left):
                await self._advance_moved()

    async def _moved(self, timeout: float) -> bool:
        """Wait for something new; False when ``timeout`` seconds are over."""
        try:
            async with asyncio.timeout(timeout):
                await self._observer.moved.wait()
        except TimeoutError:
            return False
        self._observer.moved.clear()
        return True

    async def _tick(self) -> None:
        """Compare with the database and look at everything: whatever was missed is found here."""
        await self._observer.refresh()
        known = list(self.pending.by_id)
        async with self._autocommit.connect() as connection:
            stored = await records.pending_stages(connection)
            load, forget = self.pending.difference(known, stored)
            for instance_id in forget:
                self.pending.discard(instance_id)
            for some in _batches(load):
                for instance in await records.load_pending(connection, some):
                    self.pending.put(instance)
            depth = await outbox.depth(connection)
        self._metrics.outbox.set(depth)
        if not depth:
            self._all_published()
        self._metrics.count_pending(self.pending)
        await self._apply(plan(self.pending, self._observed(), self._building_timeout_s))

    def _all_published(self) -> None:
        """The outbox is empty: what was read before that was published, by whoever led then."""
        for instance in self.pending:
            instance.published_at = instance.published_at or time.time()

    async def _advance_moved(self) -> None:
        """Look at what the reports since the last look may have finished."""
        began = time.monotonic()
        moved = self._observer.reports.take_moved()
        fresh, self._fresh = self._fresh, set()
        observed = self._observed()
        floors = {vni: observed.route_floor(vni) for vni in moved.vnis | fresh}
        touched = self.pending.touched(moved.hosts, floors)
        await self._apply(plan(touched, observed, self._building_timeout_s))
        if touched:  # more reports come together, and requests are answered meanwhile
            await asyncio.sleep(time.monotonic() - began)

    def _observed(self) -> Observed:
        return Observed(self._observer.fleet, self._observer.reports, time.time())

    async def _apply(self, made: Plan) -> None:
        for some in _batches(made.active):
            await self._activate(some)
        for some in _batches(made.gone):
            async with self._engine.begin() as connection:
                await records.remove_gone(connection, some)
            self._forget(some)
        for late in _batches(made.overdue):
            async with self._autocommit.connect() as connection:
                await records.note_overdue(connection, late)
            for instance, reason in late:
                instance.reason = reason

    async def _activate(self, instances: Sequence[Pending]) -> None:
        at = time.time()
        async with self._autocommit.connect() as connection:
            made = await records.activate(connection, instances, at)
        self._forget(instances)
        self._metrics.became_active((i for i in instances if i.id in made), at)

    def _forget(self, instances: Iterable[Pending]) -> None:
        """What did not change because it has moved on meanwhile comes back with the next tick."""
        for instance in instances:
            if self.pending.by_id.get(instance.id) is instance:
                self.pending.discard(instance.id)


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + _ROWS] for start in range(0, len(items), _ROWS))
