"""The leader's set of pending instances."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

import msgspec
import numpy as np

from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.domain.pending import ID_BYTES, Cohort


class PendingVnic(NamedTuple):
    """A vNIC, and the revision of its VPC that every live gateway must have."""

    id: UUID
    vni: int
    revision: int


class Pending(msgspec.Struct, eq=False):
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
    def stage(self) -> tuple[InstanceState, int]:
        """What tells this change of the instance from its next."""
        return self.state, self.host_revision


def members(cohort: Cohort) -> list[Pending]:
    """The instances of a cohort."""
    accepted = np.frombuffer(cohort.accepted_at, "<f8").tolist()
    count = len(cohort.vnics) // len(cohort.instances)
    ids, vnics = _ids(cohort.instances), _ids(cohort.vnics)
    routes = [cohort.routes[min(n, len(cohort.routes) - 1)] for n in range(count)]
    return [
        Pending(
            instance_id,
            cohort.state,
            cohort.host_id,
            cohort.host_revision,
            tuple(
                PendingVnic(vnic, *at)
                for vnic, at in zip(vnics[n * count : (n + 1) * count], routes, strict=True)
            ),
            accepted[n],
            cohort.committed_at,
        )
        for n, instance_id in enumerate(ids)
    ]


def _ids(packed: bytes) -> list[UUID]:
    return [
        UUID(bytes=packed[start : start + ID_BYTES]) for start in range(0, len(packed), ID_BYTES)
    ]


@dataclass(slots=True)
class PendingSet:
    """Pending instances by id, by host, and by what they wait for in each VPC.

    ``waiting`` has the instances of each revision of a VNI: looking for what the gateways may have
    finished costs what they finished. Each is found there once, even if it has left this set.
    """

    by_id: dict[UUID, Pending] = field(default_factory=dict)
    by_host: dict[UUID, set[UUID]] = field(default_factory=dict)
    waiting: dict[int, dict[int, list[UUID]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.by_id)

    def __iter__(self) -> Iterator[Pending]:
        return iter(self.by_id.values())

    def put(self, instance: Pending) -> None:
        """Add, or replace what was known of it."""
        self.discard(instance.id)
        self.by_id[instance.id] = instance
        self.by_host.setdefault(instance.host_id, set()).add(instance.id)
        for vnic in instance.vnics:
            revisions = self.waiting.setdefault(vnic.vni, {})
            revisions.setdefault(vnic.revision, []).append(instance.id)

    def discard(self, instance_id: UUID) -> None:
        """Forget an instance, if it is known."""
        instance = self.by_id.pop(instance_id, None)
        if instance is None:
            return
        members = self.by_host[instance.host_id]
        members.discard(instance_id)
        if not members:
            del self.by_host[instance.host_id]

    def touched(self, hosts: Iterable[UUID], floors: Mapping[int, int]) -> list[Pending]:
        """Those on one of the hosts, and those that the gateways may be done with.

        ``floors``: VNI -> the revision that all gateways have. Each instance is found so once.
        """
        found: set[UUID] = set()
        for host in hosts:
            found |= self.by_host.get(host, set())
        for vni, floor in floors.items():
            revisions = self.waiting.get(vni, {})
            for revision in [revision for revision in revisions if revision <= floor]:
                found.update(revisions.pop(revision))
            if not revisions:
                self.waiting.pop(vni, None)
        return [self.by_id[instance] for instance in found if instance in self.by_id]

    def difference(
        self, known: Collection[UUID], stored: Mapping[UUID, tuple[InstanceState, int]]
    ) -> tuple[list[UUID], list[UUID]]:
        """What the database has and this set does not (to load), and the reverse (to forget).

        ``known``: the ids here before the database was asked; later ones may be newer than its
        answer.
        """
        load = [
            instance
            for instance, stage in stored.items()
            if (here := self.by_id.get(instance)) is None or here.stage != stage
        ]
        return load, [instance for instance in known if instance not in stored]
