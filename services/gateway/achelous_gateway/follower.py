"""Follows the controller: route deltas, the fleet, and all revisions compared now and then."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import numpy as np
import numpy.typing as npt

from achelous_gateway.relay import VTEP, Relay
from achelous_gateway.standing import Standing
from achelous_gateway.stats import Stats
from achelous_shared import messages, subjects
from achelous_shared.bus import Bus
from achelous_shared.messages import (
    BadMessage,
    FleetDocument,
    GatewayAddress,
)
from achelous_shared.names import GATEWAY_SHARDS, VNI_MAX
from achelous_shared.route_following.comparing import COMPARE_S, compare_forever
from achelous_shared.route_following.deltas import read_delta
from achelous_shared.route_following.keeper import Keeper
from achelous_shared.route_following.plan import State, compare, joined
from achelous_shared.route_following.revisions import NotInStep, read_revisions
from achelous_shared.routes import MalformedTable, Routes, unpack

log = logging.getLogger(__name__)

_PAGE: Final = 16_384


class Follower:
    """Brings what the controller says to the keeper and the relay."""

    def __init__(
        self,
        gateway_id: UUID,
        bus: Bus,
        keeper: Keeper,
        relay: Relay,
        standing: Standing,
        stats: Stats,
    ) -> None:
        self._gateway_id = gateway_id
        self._bus = bus
        self._keeper = keeper
        self._relay = relay
        self._standing = standing
        self._stats = stats
        self._fleet_revision = -1
        self._shards: npt.NDArray[np.bool_] = np.zeros(GATEWAY_SHARDS, np.bool_)
        """Which of them the fleet document says are this gateway's."""
        self._listed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(
                self._bus.follow_batches(
                    subjects.ROUTES_STREAM, subjects.ALL_ROUTES, self._on_routes
                )
            )
            group.create_task(
                self._bus.follow(subjects.HOSTS_STREAM, subjects.FLEET, self._on_fleet, last=True)
            )
            group.create_task(compare_forever(self._compare, self._standing.compare))

    async def _on_routes(self, payloads: Sequence[bytes]) -> None:
        deltas = []
        for data in payloads:
            try:
                deltas.append(read_delta(data))
            except (BadMessage, MalformedTable) as error:
                self._refuse("delta", error)
        for delta in joined(deltas):
            # What is refused before the shards are known has been published before the revisions
            # are listed, which happens after that.
            if self._shards[delta.vni % GATEWAY_SHARDS]:
                await self._keeper.take(delta)

    async def _on_fleet(self, data: bytes) -> None:
        try:
            fleet = messages.decode(data, FleetDocument)
            hosts = unpack(fleet.host_vteps, VTEP)
        except (BadMessage, MalformedTable) as error:
            self._refuse("fleet document", error)
            return
        if fleet.revision >= self._fleet_revision:
            self._fleet_revision = fleet.revision
            self._relay.admit(hosts, fleet.gateways)
            self._serve([one for one in fleet.gateways if one.gateway_id == self._gateway_id])

    def _serve(self, own: list[GatewayAddress]) -> None:
        """Serve the shards that are this gateway's; none while it is not listed."""
        shards = np.isin(np.arange(GATEWAY_SHARDS), [shard for one in own for shard in one.shards])
        if (shards != self._shards).any():
            self._shards = shards
            self._standing.compare.set()
        if own:
            self._listed.set()

    def _refuse(self, what: str, error: Exception) -> None:
        self._stats.bad_messages += 1
        log.warning("%s refused: %s", what, error)

    async def _compare(self) -> None:
        """Compare all revisions; returns when what differed has been read."""
        try:
            async with asyncio.timeout(COMPARE_S):
                await self._listed.wait()
        except TimeoutError:
            raise NotInStep(f"the fleet document lists no gateway {self._gateway_id}") from None
        vpcs = self._keeper.vpcs
        following = {vni: vpc.revision for vni, vpc in vpcs.items() if vpc.state is State.FOLLOWING}
        found = compare(following, frozenset(vpcs.keys() - following.keys()), await self._listing())
        for vni in found.empty:
            self._keeper.introduce(vni)
        for vni in found.gone:
            await self._keeper.forget(vni)
        for vni in found.ask:
            self._keeper.ask(vni)
        await self._keeper.ask_behind(found.behind)
        try:
            async with asyncio.timeout(COMPARE_S):
                await self._keeper.wanted.join()
        except TimeoutError:
            raise NotInStep("some VPCs have not been read yet") from None
        self._standing.compared()

    async def _listing(self) -> Routes:
        """`routes.REVISION` of all VPCs of the controller in this gateway's shards."""
        pages = []
        after, done = 0, False
        while not done:
            page, done = await read_revisions(self._bus, after, _PAGE)
            vnis = np.concatenate(([after], page["vni"]))
            if not (vnis[1:] > vnis[:-1]).all() or vnis[-1] > VNI_MAX or not (done or len(page)):
                raise NotInStep(f"its VNIs do not rise from {after} up to {VNI_MAX}")
            after = int(vnis[-1])
            pages.append(page[self._shards[page["vni"] % GATEWAY_SHARDS]])
        return np.concatenate(pages)
