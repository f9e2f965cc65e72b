"""Instances on their way to ACTIVE, or out, by what they wait for: cohorts.

Whoever changes instances leaves their cohorts beside their routes in the outbox, so that the leader
need not look for them.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

import msgspec
import numpy as np

from achelous_controller.domain.instance_state import InstanceState


class RoutesAt(NamedTuple):
    """Routes of a VPC, at the revision that every live gateway must have."""

    vni: int
    revision: int


class Member(NamedTuple):
    """An instance that one transaction changed, with its vNICs and their routes in one order."""

    id: UUID
    host_id: UUID
    accepted_at: float
    """Unix seconds."""
    vnics: Sequence[UUID]
    routes: Sequence[RoutesAt]


class Cohort(msgspec.Struct, array_like=True, eq=False):
    """Instances that are not ACTIVE, were changed together, and wait for the same."""

    state: InstanceState
    host_id: UUID
    host_revision: int
    routes: tuple[RoutesAt, ...]
    """Of each VPC once."""
    committed_at: float | None
    """Unix seconds."""
    instances: bytes
    """Their ids, `ID_BYTES` each."""
    vnics: bytes
    """The ids of their vNICs, as many of each, in the order of the instances."""
    accepted_at: bytes
    """When each was asked for: Unix seconds, ``<f8``."""


def cohorts(
    members: Iterable[Member],
    state: InstanceState,
    host_revisions: Mapping[UUID, int],
    committed_at: float,
) -> list[Cohort]:
    """Those of one transaction: an instance waits for the latest routes of its VPCs that it made.

    ``host_revisions``: what each host must run.
    """
    alike: dict[tuple[UUID, tuple[int, ...]], list[Member]] = defaultdict(list)
    for member in members:
        alike[member.host_id, tuple(sorted([vni for vni, _ in member.routes]))].append(member)
    return [
        Cohort(
            state=state,
            host_id=host_id,
            host_revision=host_revisions[host_id],
            routes=latest(routes for member in some for routes in member.routes),
            committed_at=committed_at,
            instances=b"".join([member.id.bytes for member in some]),
            vnics=b"".join([vnic.bytes for member in some for vnic in member.vnics]),
            accepted_at=np.array([member.accepted_at for member in some], "<f8").tobytes(),
        )
        for (host_id, _), some in alike.items()
    ]


def latest(routes: Iterable[tuple[int, int]]) -> tuple[RoutesAt, ...]:
    """The latest of each VPC, in order of VNI, of (VNI, revision)."""
    found: dict[int, int] = {}
    for vni, revision in routes:
        found[vni] = max(found.get(vni, 0), revision)
    return tuple([RoutesAt(*each) for each in sorted(found.items())])


_encoder: Final = msgspec.msgpack.Encoder(uuid_format="bytes")
_decoder: Final = msgspec.msgpack.Decoder(list[Cohort])


def pack_cohorts(some: Sequence[Cohort]) -> bytes:
    """As the outbox holds them."""
    return _encoder.encode(some)


def unpack_cohorts(packed: bytes) -> list[Cohort]:
    """The reverse of `pack_cohorts`."""
    return _decoder.decode(packed)
