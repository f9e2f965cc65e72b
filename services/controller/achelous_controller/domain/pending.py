"""Instances on their way to ACTIVE, or out: what the leader looks after.

Whoever changes an instance leaves one of these beside its routes in the outbox, so that the leader
need not look for it.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from achelous_controller.domain.instance_state import InstanceState

Stage = tuple[InstanceState, UUID, int]
"""A state, and the host and its revision that it is about."""


class PendingVnic(NamedTuple):
    """A vNIC, and the revision of its VPC that every live gateway must have."""

    id: UUID
    vni: int
    revision: int


class Pending(msgspec.Struct, array_like=True, eq=False):
    """An instance that is not ACTIVE. Times are Unix seconds.

    The last two fields are the leader's notes: since when host and gateways are done.
    """

    id: UUID
    state: InstanceState
    host_id: UUID
    host_revision: int
    vnics: tuple[PendingVnic, ...]
    accepted_at: float
    committed_at: float | None
    published_at: float | None = None
    reason: str | None = None
    """What it was last said to wait for."""

    gateways_applied_at: float | None = None
    host_applied_at: float | None = None

    @property
    def stage(self) -> Stage:
        """What tells this change of the instance from its next."""
        return self.state, self.host_id, self.host_revision


_encoder: Final = msgspec.msgpack.Encoder(uuid_format="bytes")
_decoder: Final = msgspec.msgpack.Decoder(list[Pending])


def pack_pending(instances: Sequence[Pending]) -> bytes:
    """As the outbox holds them."""
    return _encoder.encode(instances)


def unpack_pending(packed: bytes) -> list[Pending]:
    """The reverse of `pack_pending`."""
    return _decoder.decode(packed)
