"""Numbers of identities that were given up: when they may be given again. The leader's.

A retired number is free when it has rested for longer than any session lasts, and then everybody
has reported what was wanted of them at one later moment: each host its document, with every vNIC of
it right (one that could not be changed keeps its rules and its number), and each gateway, and each
host that follows the VPC, its routes. Who is registered and does not report keeps all of them.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.types import DateTime, Uuid

from achelous_controller.programming.fleet import Fleet
from achelous_controller.programming.observer import Observer
from achelous_controller.programming.reports import Reports
from achelous_controller.programming.sql import autocommit

log = logging.getLogger(__name__)

_PERIOD_S: Final = 5.0

_RESTED: Final = text("""
    SELECT DISTINCT vpc_id, retired_at FROM retired_identities
    WHERE retired_at <= clock_timestamp() - :rest_s * interval '1 second'
""")
_WANTED_OF_VPCS: Final = text("SELECT id, vni, revision FROM vpcs WHERE id = ANY(:ids)").bindparams(
    bindparam("ids", type_=ARRAY(Uuid))
)
_WANTED_OF_HOSTS: Final = text("SELECT id, revision FROM hosts")
_FREE: Final = text("""
    DELETE FROM retired_identities AS r
    USING unnest(:vpcs, :times) AS batch (vpc_id, retired_at)
    WHERE (r.vpc_id, r.retired_at) = (batch.vpc_id, batch.retired_at)
""").bindparams(
    bindparam("vpcs", type_=ARRAY(Uuid)), bindparam("times", type_=ARRAY(DateTime(timezone=True)))
)


@dataclass(frozen=True, slots=True)
class Batch:
    """Numbers of a VPC that were retired together, and the VPC's revision at a later moment."""

    vpc_id: UUID
    retired_at: datetime
    vni: int
    revision: int


@dataclass(frozen=True, slots=True)
class Look:
    """Numbers that have rested, and what was wanted of every host when that was seen."""

    batches: Sequence[Batch]
    hosts: Mapping[UUID, int]
    """Revision of each one's document."""


def hosts_behind(look: Look, fleet: Fleet, reports: Reports) -> dict[UUID, int]:
    """The registered hosts of which it is not known that they run what was wanted."""

    def runs(host: UUID, revision: int) -> bool:
        report = reports.hosts.get(host)
        return report is not None and report.revision >= revision and not report.failed

    return {
        host: revision
        for host, revision in look.hosts.items()
        if host in fleet.hosts and not runs(host, revision)
    }


def routes_are_there(batch: Batch, fleet: Fleet, reports: Reports) -> bool:
    """Whether every registered gateway of the VPC, and every host that follows it, has its routes
    as they were wanted."""
    gateways = (
        gateway in reports.gateways
        and reports.gateways[gateway].revisions.get(batch.vni, -1) >= batch.revision
        for gateway in fleet.gateways
        if fleet.serves(gateway, batch.vni)
    )
    followers = (
        reports.hosts[host].routes[batch.vni] >= batch.revision
        for host in reports.followers.get(batch.vni, ())
    )
    return all(gateways) and all(followers)


class RetiredIdentities:
    """Frees numbers, one `Look` after another: who holds up one would hold up the next as well."""

    def __init__(self, engine: AsyncEngine, observer: Observer, rest_s: float) -> None:
        """``rest_s``: longer than any session lasts without a packet."""
        self._engine = autocommit(engine)
        self._observer = observer
        self._rest_s = rest_s
        self._look: Look | None = None

    async def run(self) -> None:
        """Until cancelled. Fails when the database does."""
        while True:
            await self.step()
            await asyncio.sleep(_PERIOD_S)

    async def step(self) -> None:
        """Look for numbers that have rested, or free those of the last look."""
        self._look = self._look or await self._read()
        if self._look is None:
            return
        await self._observer.refresh()  # who is registered: before the first time it is nobody
        fleet, reports = self._observer.fleet, self._observer.reports
        if behind := hosts_behind(self._look, fleet, reports):
            self._look = Look(self._look.batches, behind)
            return
        free = [batch for batch in self._look.batches if routes_are_there(batch, fleet, reports)]
        self._look = None  # of others the next one says what is wanted of them by then
        if free:
            await self._free(free)

    async def _read(self) -> Look | None:
        async with self._engine.connect() as connection:
            rested = (await connection.execute(_RESTED, {"rest_s": self._rest_s})).all()
            if not rested:
                return None
            # statements that begin now see all that the transactions did which retired them
            ids = {"ids": list({row.vpc_id for row in rested})}
            vpcs = {row.id: row for row in await connection.execute(_WANTED_OF_VPCS, ids)}
            hosts = {row.id: row.revision for row in await connection.execute(_WANTED_OF_HOSTS)}
        batches = [
            Batch(row.vpc_id, row.retired_at, vpcs[row.vpc_id].vni, vpcs[row.vpc_id].revision)
            for row in rested
            if row.vpc_id in vpcs
        ]
        return Look(batches, hosts)

    async def _free(self, batches: Sequence[Batch]) -> None:
        vpcs = [batch.vpc_id for batch in batches]
        values = {"vpcs": vpcs, "times": [batch.retired_at for batch in batches]}
        async with self._engine.connect() as connection:
            freed = (await connection.execute(_FREE, values)).rowcount
        log.info("%d retired identities of %d VPCs are free", freed, len(set(vpcs)))
