"""What the leader does each second about messages that may have been lost: pure, but for `Repair`.

- The last delta of a VPC: its revision is announced while a gateway does not have it.
- A document: published again while a host reports an older one.
- A report: all are asked to report again while something is pending for long.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Container, Iterable
from typing import Final, Generic, TypeVar
from uuid import UUID

from achelous_controller.programming.document_publisher import DocumentPublisher
from achelous_controller.programming.fleet import Fleet
from achelous_controller.programming.observer import Observer
from achelous_controller.programming.pending import Pending
from achelous_controller.programming.progress import Progress
from achelous_controller.programming.reports import LIVE_S, Reports
from achelous_shared import subjects
from achelous_shared.bus import Bus, BusError
from achelous_shared.messages import Message, RouteDelta, encode

log = logging.getLogger(__name__)

PERIOD_S: Final = 1.0
FIRST_S: Final = 2.0
LIMIT_S: Final = 30.0

_IN_FLIGHT: Final = 64

T = TypeVar("T")


class Backoff(Generic[T]):
    """When to try again, for each thing that is wrong: after `FIRST_S`, doubling to `LIMIT_S`."""

    def __init__(self) -> None:
        self._due: dict[T, tuple[float, float]] = {}  # (when, delay before the time after that)

    def due(self, wrong: Iterable[T], now: float) -> list[T]:
        """Of what is ``wrong``, what to try now. What is no longer wrong starts afresh."""
        known, self._due = self._due, {}
        ready: list[T] = []
        for thing in wrong:
            when, delay = known.get(thing, (now + FIRST_S, FIRST_S))
            if when <= now:
                ready.append(thing)
                delay = min(2 * delay, LIMIT_S)
                when = now + delay
            self._due[thing] = (when, delay)
        return ready


def announcements(
    pending: Iterable[Pending], followed: Container[int], now: float
) -> dict[int, int]:
    """Revision to announce of each VNI: published over a second ago, not yet everywhere.

    ``followed``: VNIs whose routes hosts hold as well as gateways.
    """
    found: dict[int, int] = {}
    for part in pending:
        published = part.published_at
        if published is None or now - published < PERIOD_S:
            continue
        for vni, revision in part.cohort.routes:
            hosts_lack = vni in followed and part.host_applied_at is None
            if part.gateways_applied_at is None or hosts_lack:
                found[vni] = max(found.get(vni, 0), revision)
    return found


def stale_documents(fleet: Fleet, reports: Reports, now: float) -> list[UUID | None]:
    """Hosts that report an older document than theirs; None if one has an older fleet document."""
    live = {
        host: report
        for host, report in reports.hosts.items()
        if host in fleet.hosts and now - report.at <= LIVE_S
    }
    stale: list[UUID | None] = [
        host for host, report in live.items() if report.revision < fleet.hosts[host].revision
    ]
    if any(report.fleet_revision < fleet.revision for report in live.values()):
        stale.append(None)
    return stale


def untold(fleet: Fleet, reports: Reports, pending: Iterable[Pending], now: float) -> bool:
    """Whether a report may be lost: a gateway never told all, or something has waited for long."""
    partial = any(
        not report.full
        for gateway, report in reports.gateways.items()
        if gateway in fleet.gateways and now - report.at <= LIVE_S
    )
    return partial or any(
        part.published_at is not None and now - part.published_at > FIRST_S for part in pending
    )


class Repair:
    """Looks each second for what may have been lost."""

    def __init__(
        self, bus: Bus, observer: Observer, progress: Progress, documents: DocumentPublisher
    ) -> None:
        self._bus = bus
        self._observer = observer
        self._progress = progress
        self._documents = documents
        self._stale: Backoff[UUID | None] = Backoff()
        self._untold: Backoff[None] = Backoff()
        self._in_flight = asyncio.Semaphore(_IN_FLIGHT)

    async def run(self) -> None:
        """Ask all for their reports, then repair until cancelled."""
        await self._ask()
        while True:
            await asyncio.sleep(PERIOD_S)
            fleet, reports, now = self._observer.fleet, self._observer.reports, time.time()
            pending = list(self._progress.pending)
            self._documents.repeat(self._stale.due(stale_documents(fleet, reports, now), now))
            if self._untold.due([None] if untold(fleet, reports, pending, now) else [], now):
                await self._ask()
            async with asyncio.TaskGroup() as group:
                for vni, revision in announcements(pending, reports.followers, now).items():
                    group.create_task(self._announce(vni, revision))

    async def _ask(self) -> None:
        try:
            await self._bus.publish(subjects.REPORT, Message())
        except BusError as error:
            log.warning("asking for reports: %s", error)

    async def _announce(self, vni: int, revision: int) -> None:
        message = RouteDelta(vni=vni, base=revision, revision=revision, entries=b"")
        async with self._in_flight:
            try:
                await self._bus.publish_stream(
                    subjects.ROUTES_STREAM,
                    subjects.routes(vni),
                    encode(message),
                    message_id=f"{vni}-{revision}-{secrets.token_hex(8)}",
                )
            except BusError as error:
                log.warning("revision %d of VNI %d was not announced: %s", revision, vni, error)
