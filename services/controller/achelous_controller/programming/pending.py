"""The leader's set of pending cohorts."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from uuid import UUID

import numpy as np
import numpy.typing as npt

from achelous_controller.domain.ids import ID_BYTES, unpacked
from achelous_controller.domain.instance_state import TRANSITIONS, InstanceState
from achelous_controller.domain.pending import Cohort

Change: TypeAlias = tuple[UUID, int]
"""A host and the revision of its document: what one transaction changed on it."""

_ID: Final = f"S{ID_BYTES}"


@dataclass(slots=True, eq=False)
class Pending:
    """A cohort, or part of one, with the leader's notes. Times are Unix seconds."""

    cohort: Cohort
    published_at: float | None = None
    reason: str | None = None
    """What it was last said to wait for."""
    gateways_applied_at: float | None = None
    """Since when they are done."""
    host_applied_at: float | None = None
    asked_at: float = field(init=False)
    """When the last of its instances was asked for."""

    def __post_init__(self) -> None:
        self.asked_at = float(self.accepted().max())

    def __len__(self) -> int:
        return len(self.cohort.instances) // ID_BYTES

    @property
    def change(self) -> Change:
        """What tells this change of its instances from their next."""
        return self.cohort.host_id, self.cohort.host_revision

    def accepted(self) -> npt.NDArray[np.float64]:
        """When each instance was asked for."""
        return np.frombuffer(self.cohort.accepted_at, "<f8")

    def instances(self) -> list[UUID]:
        """Ids of its instances."""
        return list(unpacked(self.cohort.instances))

    def vnics(self) -> list[UUID]:
        """Ids of their vNICs, in their order."""
        return list(unpacked(self.cohort.vnics))

    def noted(self, reason: str) -> None:
        """The database says now what it waits for."""
        self.reason = reason
        if InstanceState.ERROR in TRANSITIONS[self.cohort.state]:
            self.cohort.state = InstanceState.ERROR

    def has_any(self, vnics: Iterable[UUID]) -> npt.NDArray[np.bool_]:
        """Of each instance, whether it has one of these vNICs."""
        wanted = np.frombuffer(b"".join([vnic.bytes for vnic in vnics]), _ID)
        return np.asarray(np.isin(self._table(), wanted).any(axis=1), np.bool_)

    def part(self, of: npt.NDArray[Any]) -> "Pending":
        """The part with some of the instances: a mask, or their places."""
        cohort = Cohort(
            state=self.cohort.state,
            host_id=self.cohort.host_id,
            host_revision=self.cohort.host_revision,
            routes=self.cohort.routes,
            committed_at=self.cohort.committed_at,
            instances=np.frombuffer(self.cohort.instances, _ID)[of].tobytes(),
            vnics=self._table()[of].tobytes(),
            accepted_at=self.accepted()[of].tobytes(),
        )
        return Pending(
            cohort, self.published_at, self.reason, self.gateways_applied_at, self.host_applied_at
        )

    def _table(self) -> npt.NDArray[np.bytes_]:
        """Ids of vNICs, a row for each instance."""
        return np.frombuffer(self.cohort.vnics, _ID).reshape(len(self), -1)


class PendingSet:
    """Pending cohorts by change, by host, and by what they wait for in each VPC.

    Looking for what the gateways may have finished costs what they finished: a cohort is found
    there once for each of its routes, even if it has left this set.
    """

    def __init__(self) -> None:
        self.sizes: dict[Change, int] = {}
        """Number of instances of each change."""
        self._by_host: dict[UUID, dict[int, dict[Pending, None]]] = {}  # then by revision
        self._waiting: dict[int, dict[int, list[Pending]]] = {}  # by VNI, then by revision

    def __len__(self) -> int:
        """Number of instances."""
        return sum(self.sizes.values())

    def __iter__(self) -> Iterator[Pending]:
        for changes in list(self._by_host.values()):
            for parts in list(changes.values()):
                yield from list(parts)

    def __contains__(self, pending: Pending) -> bool:
        return pending in self.of(pending.change)

    def of(self, change: Change) -> Collection[Pending]:
        """The parts of a change."""
        host_id, revision = change
        return self._by_host.get(host_id, {}).get(revision, ())

    def put(self, pending: Pending) -> None:
        """Add a cohort, or a part of one, whose instances are not here."""
        host_id, revision = change = pending.change
        self._by_host.setdefault(host_id, {}).setdefault(revision, {})[pending] = None
        self.sizes[change] = self.sizes.get(change, 0) + len(pending)
        for vni, at in pending.cohort.routes:
            self._waiting.setdefault(vni, {}).setdefault(at, []).append(pending)

    def discard(self, pending: Pending) -> None:
        """Forget a part, if it is known."""
        host_id, revision = change = pending.change
        changes = self._by_host.get(host_id, {})
        if pending not in changes.get(revision, ()):
            return
        del changes[revision][pending]
        self.sizes[change] -= len(pending)
        if not changes[revision]:
            del changes[revision], self.sizes[change]
        if not changes:
            del self._by_host[host_id]

    def split(self, pending: Pending, parts: Iterable[Pending]) -> None:
        """Put the parts of a cohort in its place."""
        self.discard(pending)
        for part in parts:
            self.put(part)

    def replace(self, changes: Iterable[Change], stored: Iterable[Pending]) -> None:
        """Take these changes as the database has them; what was noted of them stays noted."""
        notes: dict[Change, Pending] = {}
        for change in changes:
            for part in list(self.of(change)):
                notes[change] = part
                self.discard(part)
        for pending in stored:
            if (noted := notes.get(pending.change)) is not None:
                pending.published_at = pending.published_at or noted.published_at
            self.put(pending)

    def touched(self, hosts: Iterable[UUID], floors: Mapping[int, int]) -> list[Pending]:
        """Those on one of the hosts, and those that the gateways may be done with.

        ``floors``: VNI -> the revision that all gateways have. Each cohort is found so once.
        """
        found: dict[Pending, None] = {}
        for host in hosts:
            for parts in self._by_host.get(host, {}).values():
                found |= dict.fromkeys(parts)
        for vni, floor in floors.items():
            revisions = self._waiting.get(vni, {})
            for revision in [revision for revision in revisions if revision <= floor]:
                found |= dict.fromkeys(revisions.pop(revision))
            if not revisions:
                self._waiting.pop(vni, None)
        return [pending for pending in found if pending in self]

    def difference(
        self, known: Mapping[Change, int], stored: Mapping[Change, int]
    ) -> tuple[list[Change], list[Change]]:
        """What the database has otherwise than this set (to load), and what it has not (to forget).

        Sizes of changes. ``known``: those here before the database was asked; later ones may be
        newer than its answer.
        """
        load = [change for change, size in stored.items() if self.sizes.get(change) != size]
        return load, [change for change in known if change not in stored]
