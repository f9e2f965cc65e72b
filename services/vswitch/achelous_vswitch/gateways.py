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

from achelous_shared.messages import FleetDocument, GatewayAddress
from achelous_shared.routes import unpack
from achelous_vswitch import rendezvous
from achelous_vswitch.dataplane import Array, Table

LOST_PROBES: Final = 3
STALE_HEARTBEAT_MS: Final = 1000

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
        self._shares = shares
        self._vteps = vteps
        self._gateways: dict[UUID, Gateway] = {}
        self._sharing: dict[UUID, int] = {}
        self._turn = 0
        self.revision = 0
        """Of the fleet document that is applied; 0: none yet."""

    def __iter__(self) -> Iterator[Gateway]:
        return iter(self._gateways.values())

    def apply(self, fleet: FleetDocument, own_vtep: int | None) -> bool:
        """Take over a document; False if a newer one is applied already.

        Raises `MalformedTable`, and changes nothing, if its table is malformed. The own VTEP is
        nobody's to send from.
        """
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
        self.share_out()
        gone = [vtep for vtep in known if vtep not in wanted]
        if gone:
            self._vteps.delete_batch(np.array(gone, self._vteps.key_dtype))
        self.revision = fleet.revision
        return True

    def share_out(self) -> None:
        """Bring the shares to what is live now; if nothing changed, nothing is written."""
        every = {gateway.gateway_id: gateway.vtep for gateway in self}
        live = {gateway.gateway_id: gateway.vtep for gateway in self if gateway.live}
        sharing = live or every
        if sharing != self._sharing:
            self._shares[:] = rendezvous.table(sharing, len(self._shares))
            self._sharing = sharing

    def in_turn(self) -> list[Gateway]:
        """The gateways to ask, best first: a live one, another one each time, then the others."""
        sharing = [gateway for gateway in self if gateway.gateway_id in self._sharing]
        if not sharing:
            return []
        self._turn = (self._turn + 1) % len(sharing)
        return sharing[self._turn :] + sharing[: self._turn]

    def share(self, gateway: Gateway) -> float:
        """The part of the destinations that a gateway serves, 0..1."""
        return float(np.mean(self._shares == gateway.vtep))

    def _merge(self, wanted: GatewayAddress) -> Gateway:
        known = self._gateways.get(wanted.gateway_id)
        if known is not None and known.vtep == wanted.vtep:
            known.name = wanted.name
            return known
        heard = bool((self._shares == wanted.vtep).any())
        return Gateway(wanted.gateway_id, wanted.name, wanted.vtep, heard)

    def _write(self, vteps: dict[int, int]) -> None:
        if vteps:
            self._vteps.update_batch(
                np.array(list(vteps), self._vteps.key_dtype),
                np.array(list(vteps.values()), self._vteps.value_dtype),
            )
