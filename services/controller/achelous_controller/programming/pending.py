"""The leader's set of pending instances."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.domain.pending import Pending

K = TypeVar("K")


@dataclass(slots=True)
class PendingSet:
    """Pending instances by id, by host and by VNI."""

    by_id: dict[UUID, Pending] = field(default_factory=dict)
    by_host: dict[UUID, set[UUID]] = field(default_factory=dict)
    by_vni: dict[int, set[UUID]] = field(default_factory=dict)

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
            self.by_vni.setdefault(vnic.vni, set()).add(instance.id)

    def discard(self, instance_id: UUID) -> None:
        """Forget an instance, if it is known."""
        instance = self.by_id.pop(instance_id, None)
        if instance is None:
            return
        _drop(self.by_host, instance.host_id, instance_id)
        for vni in {vnic.vni for vnic in instance.vnics}:
            _drop(self.by_vni, vni, instance_id)

    def touched(
        self, hosts: Iterable[UUID], vnis: Iterable[int], instances: Iterable[UUID]
    ) -> list[Pending]:
        """Those on one of the hosts, with a vNIC in one of the VPCs, or named themselves."""
        found = self.by_id.keys() & set(instances)
        for host in hosts:
            found |= self.by_host.get(host, set())
        for vni in vnis:
            found |= self.by_vni.get(vni, set())
        return [self.by_id[instance] for instance in found]

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


def _drop(index: dict[K, set[UUID]], key: K, instance_id: UUID) -> None:
    members = index[key]
    members.discard(instance_id)
    if not members:
        del index[key]
