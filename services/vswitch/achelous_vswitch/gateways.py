"""The gateways of the fleet as this host sees them, and what the packet path is told of them.

A gateway whose last three probes were lost, or whose tables nobody vouched for in the last second,
gets no share of the destinations until it answers well again. With none that is live, all keep
their share: a doubtful gateway is better than none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import numpy as np
import numpy.typing as npt

from achelous_shared.messages import BadMessage, FleetDocument, GatewayAddress
from achelous_shared.names import GATEWAY_SHARDS
from achelous_shared.routes import unpack
from achelous_vswitch import rendezvous
from achelous_vswitch.dataplane import Array, Table

LOST_PROBES: Final = 3
STALE_HEARTBEAT_MS: Final = 1000

ALL_SHARDS: Final = frozenset(range(GATEWAY_SHARDS))

VTEP_HOST: Final = 1
VTEP_GATEWAY: Final = 2
"""C's enum ach_vtep_kind."""


@dataclass(slots=True)
class Gateway:
    """One gateway. ``sent`` and ``answered`` are the sequence numbers of its last probes."""

    gateway_id: UUID
    name: str
    vtep: int
    heard: bool
    """It answered this agent once, or had a share when this agent started."""
    shards: frozenset[int] = ALL_SHARDS
    fresh: bool = True
    """Its tables were in step with the controller when it last answered."""
    sent: int = 0
    answered: int = 0
    rtt_us: float | None = None

    @property
    def live(self) -> bool:
        """Whether it may have a share. To be asked when the next probe is due, not right after."""
        return self.heard and self.fresh and self.sent - self.answered < LOST_PROBES


class Gateways:
    """The fleet's document, applied by difference, and the share of each gateway."""

    def __init__(self, shares: Array, vteps: Table) -> None:
        """The packet path's `gateways` and `vteps`."""
        self._shares = shares.reshape(GATEWAY_SHARDS, -1)
        if not self._shares[1:].any():
            self._shares[1:] = self._shares[0]  # it ran before there were shards: one for all
        self._vteps = vteps
        self._gateways: dict[UUID, Gateway] = {}
        self._groups: npt.NDArray[np.uint8] = np.zeros(GATEWAY_SHARDS, np.uint8)
        """Of each shard; shards that the same gateways serve are in one."""
        self._sharing: dict[int, dict[UUID, int]] = {}
        self._turn = 0
        self.revision = 0
        """Of the fleet document that is applied; 0: none yet."""

    def __iter__(self) -> Iterator[Gateway]:
        return iter(self._gateways.values())

    def apply(self, fleet: FleetDocument, own_vtep: int | None) -> bool:
        """Take over a document; False if a newer one is applied already.

        Raises `MalformedTable` or `BadMessage`, and changes nothing, if it is malformed. The own
        VTEP is nobody's to send from.
        """
        for gateway in fleet.gateways:
            if strange := set(gateway.shards) - ALL_SHARDS:
                raise BadMessage(f"{gateway.name} serves {strange}, not 0..{GATEWAY_SHARDS - 1}")
        hosts = unpack(fleet.host_vteps, np.dtype([("vtep", ">u4")]))["vtep"]
        if fleet.revision < self.revision:
            return False
        wanted = dict.fromkeys(hosts.tolist(), VTEP_HOST)
        wanted |= {gateway.vtep: VTEP_GATEWAY for gateway in fleet.gateways}
        wanted = {vtep: kind for vtep, kind in wanted.items() if vtep != own_vtep}
        keys, kinds = self._vteps.lookup_batch_all()
        known = dict(zip(keys.tolist(), kinds.tolist(), strict=True))
        self._write({vtep: kind for vtep, kind in wanted.items() if known.get(vtep) != kind})
        self._gateways = {gateway.gateway_id: self._merge(gateway) for gateway in fleet.gateways}
        self._group()
        self.share_out()
        gone = [vtep for vtep in known if vtep not in wanted]
        if gone:
            self._vteps.delete_batch(np.array(gone, self._vteps.key_dtype))
        self.revision = fleet.revision
        return True

    def share_out(self) -> None:
        """Bring the shares to what is live now; if nothing changed, nothing is written."""
        for group in np.unique(self._groups).tolist():
            sharing = self._to_share(group)
            if sharing != self._sharing.get(group):
                table = rendezvous.table(sharing, self._shares.shape[1])
                self._shares[self._groups == group] = table
                self._sharing[group] = sharing

    def _group(self) -> None:
        serving = [
            frozenset(one.gateway_id for one in self if shard in one.shards)
            for shard in range(GATEWAY_SHARDS)
        ]
        numbers = {some: number for number, some in enumerate(dict.fromkeys(serving))}
        groups = np.array([numbers[some] for some in serving], np.uint8)
        if (groups != self._groups).any():
            self._groups = groups
            self._sharing.clear()

    def _to_share(self, group: int) -> dict[UUID, int]:
        shard = int(np.flatnonzero(self._groups == group)[0])
        every = [gateway for gateway in self if shard in gateway.shards]
        live = [gateway for gateway in every if gateway.live]
        return {gateway.gateway_id: gateway.vtep for gateway in live or every}

    def groups_of(self, vnis: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
        """Numbers (n,) of the groups of gateways that serve these VPCs (n,)."""
        groups: npt.NDArray[np.uint8] = self._groups[vnis % GATEWAY_SHARDS]
        return groups

    def in_turn(self, group: int) -> list[Gateway]:
        """The gateways of a group to ask: live ones, or all, beginning with another each time."""
        shares = self._sharing.get(group, {})
        sharing = [gateway for gateway in self if gateway.gateway_id in shares]
        if not sharing:
            return []
        self._turn += 1
        first = self._turn % len(sharing)
        return sharing[first:] + sharing[:first]

    def share(self, gateway: Gateway) -> float:
        """The part of the destinations in its shards that a gateway serves, 0..1."""
        shares = self._shares[sorted(gateway.shards)]
        return float(np.mean(shares == gateway.vtep)) if len(shares) else 0.0

    def _merge(self, wanted: GatewayAddress) -> Gateway:
        known, shards = self._gateways.get(wanted.gateway_id), frozenset(wanted.shards)
        if known is not None and (known.vtep, known.shards) == (wanted.vtep, shards):
            known.name = wanted.name
            return known
        heard = bool((self._shares == wanted.vtep).any())
        return Gateway(wanted.gateway_id, wanted.name, wanted.vtep, heard, shards)

    def _write(self, vteps: dict[int, int]) -> None:
        if vteps:
            self._vteps.update_batch(
                np.array(list(vteps), self._vteps.key_dtype),
                np.array(list(vteps.values()), self._vteps.value_dtype),
            )
