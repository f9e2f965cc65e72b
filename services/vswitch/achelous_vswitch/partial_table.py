"""A route table that takes what fits and says of which VPCs some routes are missing."""

import logging

import numpy as np

from achelous_shared.route_following.index import Rows
from achelous_shared.route_following.table import Changes, RouteTable
from achelous_shared.routes import RouteOp, Routes

log = logging.getLogger(__name__)


class PartialTable(RouteTable):
    """Never raises `TableFull`: what a host has no route for is relayed, and learned."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.lacking: set[int] = set()
        """VPCs of which some routes did not fit."""

    def apply(self, vni: int, delta: Routes) -> Changes:
        """See RouteTable."""
        return super().apply(vni, self._fitting(vni, delta))

    def restate(self, vni: int, chunk: Routes) -> tuple[Changes, Rows]:
        """See RouteTable; rows of those entries that fit."""
        return super().restate(vni, self._fitting(vni, chunk))

    def load(self, vni: int, chunk: Routes) -> tuple[Changes, Rows]:
        """See RouteTable; rows of those entries that fit."""
        return super().load(vni, self._fitting(vni, chunk))

    def has_room(self) -> bool:
        """Whether it is worth reading again what is lacking: a sixteenth is free."""
        return self.capacity - len(self) > self.capacity // 16

    def _fitting(self, vni: int, entries: Routes) -> Routes:
        room = self.capacity - len(self)
        if len(entries) <= room:
            return entries
        new = (self.lookup(vni, entries["ip"]) < 0) & (entries["op"] == RouteOp.UPSERT)
        missing = int(new.sum()) - room
        if missing <= 0:
            return entries
        if vni not in self.lacking:
            log.error(
                "VPC %d: %d routes or more do not fit, they are left to be learned: raise"
                " ACHELOUS_MAX_PREPROGRAMMED above %d",
                *(vni, missing, self.capacity),
            )
        self.lacking.add(vni)
        fitting: Routes = entries[~new | (np.cumsum(new) <= room)]
        return fitting
