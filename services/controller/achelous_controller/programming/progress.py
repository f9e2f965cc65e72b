"""Moves instances to ACTIVE, ERROR or out, by what gateways and hosts report. The leader's."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

from achelous_controller.domain.pending import Cohort
from achelous_controller.programming import outbox, records
from achelous_controller.programming.metrics import Metrics
from achelous_controller.programming.observer import Observer
from achelous_controller.programming.pending import Change, Pending, PendingSet
from achelous_controller.programming.plan import Observed, Plan, apart, plan

log = logging.getLogger(__name__)

_TICK_S: Final = 1.0
_TICK_SHARE: Final = 0.2
"""Of this process's time, for comparing with the database, which waits `_TICK_MOST_S` at most."""
_TICK_MOST_S: Final = 3.0
_ROWS: Final = 5000
"""Instances of one statement, and one cohort more: some 25 ms of the database's time."""
_REST_S: Final = 0.04
"""After a statement: what is reported meanwhile comes with the next. A lone change meets none."""


T = TypeVar("T")


class Progress:
    """Holds what is pending: read from the database at the start, told by `published`, and compared
    with the database each second.

    ``connection``: its own, with the settings `records.SESSION`.
    """

    def __init__(
        self, connection: Any, observer: Observer, metrics: Metrics, building_timeout_s: float
    ) -> None:
        self._connection = connection
        self._observer = observer
        self._metrics = metrics
        self._building_timeout_s = building_timeout_s
        self._fresh: set[int] = set()  # VNIs of what was published since the last look
        self._uncounted = True
        self._differing: frozenset[Change] | None = None  # at the last tick; None: load at once
        self.pending = PendingSet()

    def published(self, cohorts: Sequence[Cohort], at: float) -> None:
        """Take the cohorts whose routes were published at that time, Unix seconds."""
        told = [Pending(cohort, published_at=at) for cohort in cohorts]
        known = [part for new in told for part in self.pending.of(new.change)]
        for part in known:
            part.published_at = part.published_at or at
        changes = {part.change for part in known}
        for new in told:
            if new.change not in changes:
                self.pending.put(new)
            self._fresh.update([vni for vni, _ in new.cohort.routes])
        self._observer.moved.set()

    def recount(self) -> None:
        """Somebody wrote instances who does not note which of them are pending."""
        self._uncounted = True

    async def run(self) -> None:
        """Follow the reports until cancelled. Fails when the database does."""
        while True:
            began = time.monotonic()
            await self._tick()
            took = time.monotonic() - began
            due = began + max(_TICK_S, min(took / _TICK_SHARE, _TICK_MOST_S))
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
        await self._compare()
        depth = await outbox.depth(self._connection)
        self._metrics.outbox.set(depth)
        if not depth:
            self._all_published()
        self._metrics.count_pending(self.pending)
        await self._apply(self._plan(self.pending, self._observed()))

    async def _compare(self) -> None:
        if self._uncounted:
            self._uncounted, self._differing = False, None
            await records.recount(self._connection)
        known = dict(self.pending.sizes)
        stored = await records.sizes(self._connection)
        differing, forget = self.pending.difference(known, stored)
        self.pending.replace(forget, [])
        before, self._differing = self._differing, frozenset(differing)
        # what was committed a moment ago is being published, and comes by itself
        load = [change for change in differing if before is None or change in before]
        for some in _together(load, stored.__getitem__):
            self.pending.replace(some, await records.load(self._connection, some))

    def _all_published(self) -> None:
        """The outbox is empty: what was read before that was published, by whoever led then."""
        for part in self.pending:
            part.published_at = part.published_at or time.time()

    async def _advance_moved(self) -> None:
        """Look at what the reports since the last look may have finished."""
        moved = self._observer.reports.take_moved()
        fresh, self._fresh = self._fresh, set()
        observed = self._observed()
        floors = {vni: observed.route_floor(vni) for vni in moved.vnis | fresh}
        touched = self.pending.touched(moved.hosts, floors)
        if touched and await self._apply(self._plan(touched, observed)):
            await asyncio.sleep(_REST_S)

    def _observed(self) -> Observed:
        return Observed(self._observer.fleet, self._observer.reports, time.time())

    def _plan(self, pending: Iterable[Pending], observed: Observed) -> Plan:
        parts: list[Pending] = []
        for whole in pending:
            found = apart(whole, observed, self._building_timeout_s)
            if len(found) > 1:
                self.pending.split(whole, found)
            parts += found
        return plan(parts, observed, self._building_timeout_s)

    async def _apply(self, made: Plan) -> bool:
        """Returns whether there was anything to do."""
        for some in _together(made.active, len):
            await self._activate(some)
        for some in _together(made.gone, len):
            await records.remove_gone(self._connection, some)
            self._forget(some)
        for late in _together(made.overdue, lambda late: len(late[0])):
            await records.note_overdue(self._connection, late)
            for part, reason in late:
                part.noted(reason)
        return bool(made.active or made.gone or made.overdue)

    async def _activate(self, parts: Sequence[Pending]) -> None:
        at = time.time()
        made = await records.activate(self._connection, parts, at)
        self._forget(parts)
        self._metrics.became_active(parts, made, at)

    def _forget(self, parts: Iterable[Pending]) -> None:
        """What did not change because it has moved on meanwhile comes back with the next tick."""
        for part in parts:
            self.pending.discard(part)


def _together(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Lists of items that have `_ROWS` instances or a few more."""
    some: list[T] = []
    rows = 0
    for item in items:
        some.append(item)
        rows += size(item)
        if rows >= _ROWS:
            yield some
            some, rows = [], 0
    if some:
        yield some
