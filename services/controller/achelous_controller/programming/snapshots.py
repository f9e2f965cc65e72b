"""Pages of the route tables for gateways that fell behind; every controller answers.

The revision is read before the page, which so has all of it and perhaps more. Later pages may be
newer than the first: the deltas after the first page's revision bring all pages to one state.
"""

import asyncio
import logging
from typing import Final

import numpy as np
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.programming.metrics import Metrics
from achelous_controller.programming.route_pages import read_page
from achelous_controller.programming.sql import autocommit
from achelous_controller.store.failures import FAILURES
from achelous_shared import subjects
from achelous_shared.bus import Bus
from achelous_shared.messages import (
    BadMessage,
    RevisionsReply,
    RevisionsRequest,
    SnapshotReply,
    SnapshotRequest,
    decode,
    encode,
)
from achelous_shared.names import VNI_MAX
from achelous_shared.routes import MAX_PAGE_ENTRIES, REVISION, ip_bytes, pack

log = logging.getLogger(__name__)

MAX_REVISIONS: Final = 32_768
"""VPCs of one reply: 384 KiB."""

_QUEUE: Final = "controllers"
_CONCURRENCY: Final = 4  # each takes a connection of the pool, which the API uses too

_STAND: Final = text("""
    SELECT
        (SELECT revision FROM vpcs WHERE vni = :vni) AS revision,
        (SELECT host(ip) FROM vnics WHERE vni = :vni ORDER BY ip LIMIT 1) AS first4,
        (SELECT host(ip) FROM vnics WHERE vni = :vni ORDER BY ip DESC LIMIT 1) AS last4,
        (SELECT host(ip6) FROM vnics WHERE vni = :vni AND ip6 IS NOT NULL ORDER BY ip6 LIMIT 1)
            AS first6,
        (SELECT host(ip6) FROM vnics WHERE vni = :vni AND ip6 IS NOT NULL ORDER BY ip6 DESC LIMIT 1)
            AS last6
""")

_REVISIONS: Final = text("""
    SELECT
        string_agg(int4send(vni), '' ORDER BY vni) AS vnis,
        string_agg(int8send(revision), '' ORDER BY vni) AS revisions
    FROM (
        SELECT vni, revision FROM vpcs WHERE vni > :after ORDER BY vni LIMIT :limit
    ) AS page
""")


class Snapshots:
    """Answers requests for routes and for revisions of VPCs."""

    def __init__(self, engine: AsyncEngine, bus: Bus, metrics: Metrics) -> None:
        self._engine = autocommit(engine)
        self._bus = bus
        self._metrics = metrics

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as group:
            for subject, answer in (
                (subjects.SNAPSHOT_ROUTES, self.routes),
                (subjects.SNAPSHOT_REVISIONS, self.revisions),
            ):
                group.create_task(
                    self._bus.serve(subject, answer, queue=_QUEUE, concurrency=_CONCURRENCY)
                )

    async def routes(self, request: bytes) -> bytes:
        """A `SnapshotReply` for a `SnapshotRequest`; with its ``error`` set when that fails."""
        try:
            return encode(await self._routes(decode(request, SnapshotRequest)))
        except (BadMessage, *FAILURES) as error:
            why = self._failed(subjects.SNAPSHOT_ROUTES, error)
            return encode(SnapshotReply(vni=0, revision=0, entries=b"", done=True, error=why))

    async def revisions(self, request: bytes) -> bytes:
        """A `RevisionsReply` for a `RevisionsRequest`; with its ``error`` set when that fails."""
        try:
            return encode(await self._revisions(decode(request, RevisionsRequest)))
        except (BadMessage, *FAILURES) as error:
            why = self._failed(subjects.SNAPSHOT_REVISIONS, error)
            return encode(RevisionsReply(revisions=b"", done=True, error=why))

    def _failed(self, subject: str, error: Exception) -> str:
        if isinstance(error, BadMessage):
            self._metrics.bad_messages.labels(subject).inc()
            return str(error)
        log.warning("%s: no answer from the database: %r", subject, error)
        return "the database does not answer"

    async def _routes(self, request: SnapshotRequest) -> SnapshotReply:
        limit = max(1, min(request.limit, MAX_PAGE_ENTRIES))
        for name, address in (("after", request.after), ("until", request.until)):
            if len(address) not in (0, 16):
                raise BadMessage(f"{name} has {len(address)} bytes, not 16 or none")
        vni = _check_vni(request.vni)
        async with self._engine.connect() as connection:
            stand = (await connection.execute(_STAND, {"vni": vni})).one()
            page = await read_page(connection, vni, request.after, request.until, limit)
        return SnapshotReply(
            vni=vni,
            revision=stand.revision or 0,
            entries=pack(page),
            done=len(page) < limit,
            spans=tuple(
                (ip_bytes(first), ip_bytes(last))
                for first, last in ((stand.first4, stand.last4), (stand.first6, stand.last6))
                if first and last
            ),
        )

    async def _revisions(self, request: RevisionsRequest) -> RevisionsReply:
        limit = max(1, min(request.limit, MAX_REVISIONS))
        values = {"after": _check_vni(request.after), "limit": limit}
        async with self._engine.connect() as connection:
            row = (await connection.execute(_REVISIONS, values)).one()
        count = len(row.vnis or b"") // 4
        table = np.zeros(count, REVISION)
        if count:
            table["vni"] = np.frombuffer(row.vnis, ">u4")
            table["revision"] = np.frombuffer(row.revisions, ">u8")
        return RevisionsReply(revisions=pack(table), done=count < limit)


def _check_vni(vni: int) -> int:
    if not 0 <= vni <= VNI_MAX:
        raise BadMessage(f"VNI {vni} is not within 0..{VNI_MAX}")
    return vni
