"""Publishes the route deltas of the outbox: in order within a VPC, many VPCs at once."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from achelous_controller.domain.pending import unpack_cohorts
from achelous_controller.programming.metrics import Metrics
from achelous_controller.programming.outbox import RoutesRow
from achelous_controller.programming.progress import Progress
from achelous_shared import subjects
from achelous_shared.messages import RouteDelta, encode
from achelous_shared.routes import MAX_DELTA_ENTRIES, ROUTE
from achelous_shared.stream_writer import Append, StreamWriter

_MAX_BYTES: Final = MAX_DELTA_ENTRIES * ROUTE.itemsize


class RoutePublisher:
    """Takes deltas to the stream, and tells ``progress`` who waits for them."""

    def __init__(self, writer: StreamWriter, metrics: Metrics, progress: Progress) -> None:
        self._writer = writer
        self._metrics = metrics
        self._progress = progress

    async def publish(self, rows: Iterable[RoutesRow]) -> list[int]:
        """The rows that the stream has; of a VPC those up to the first that it did not take."""
        by_vni: dict[int, list[RoutesRow]] = {}
        for row in rows:
            by_vni.setdefault(row.vni, []).append(row)
        published: list[int] = []
        left = [joined(deltas) for deltas in by_vni.values()]
        while some := [(deltas, first) for deltas in left if (first := next(deltas, None))]:
            taken = await self._writer.append([_message(first) for _, first in some])
            done = [one for one, is_taken in zip(some, taken, strict=True) if is_taken]
            published += self._done([first for _, first in done])
            left = [deltas for deltas, _ in done]
        return published

    def _done(self, messages: Sequence[Sequence[RoutesRow]]) -> list[int]:
        at = time.time()
        self._metrics.published.labels("routes").inc(len(messages))
        rows = [row for message in messages for row in message]
        for row in rows:
            if row.cohorts is not None:
                self._progress.published(unpack_cohorts(row.cohorts), at)
            elif row.unnoted:
                self._progress.recount()
        return [row.id for row in rows]


def _message(rows: Sequence[RoutesRow]) -> Append:
    first, last = rows[0], rows[-1]
    delta = RouteDelta(
        vni=first.vni,
        base=first.base,
        revision=last.revision,
        entries=b"".join([row.entries for row in rows]),
    )
    # of its revision there is one that the stream took after all before it
    return Append(subjects.routes(first.vni), encode(delta), f"{last.vni}-{last.revision}")


def joined(deltas: Iterable[RoutesRow]) -> Iterator[list[RoutesRow]]:
    """Deltas of one VPC that go together: each joins on to the one before, and all fit a message.

    A message costs every gateway as much as hundreds of entries.
    """
    some: list[RoutesRow] = []
    for row in deltas:
        size = sum(len(each.entries) for each in some) + len(row.entries)
        if some and (row.base != some[-1].revision or size > _MAX_BYTES):
            yield some
            some = []
        some.append(row)
    if some:
        yield some
