"""The ports of hosts as they were last published, so that a change costs what changed.

A host's document has all of its ports, hundreds of them, and most changes concern one. The rows of
the outbox say which (`schema.outbox`), and each takes the host's revision one further: what is held
of a host stands for a revision, and is good as long as the rows that follow it are all there.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

import msgspec

from achelous_shared.messages import Port

LIMIT_BYTES: Final = 128 * 1024 * 1024
"""Of encoded ports: some 300,000, which take twice as much memory."""

Groups = tuple[UUID, ...]
"""Security groups of a port."""

_ID_BYTES: Final = 16
T = TypeVar("T")
_encoder: Final = msgspec.msgpack.Encoder()


class Change(NamedTuple):
    """A row of the outbox about a host. ``vnics``: ids that came or went, None: anything."""

    id: int
    host_id: UUID
    revision: int
    vnics: bytes | None


class HeldPort(NamedTuple):
    """A port as it is published, its VPC, and the security groups that it names."""

    encoded: msgspec.Raw
    size: int
    vni: int
    security_groups: Groups


@dataclass(slots=True)
class Held:
    """The ports of a host at a revision of its document."""

    revision: int
    ports: dict[UUID, HeldPort] = field(default_factory=dict)
    sets: Counter[Groups] = field(default_factory=Counter)
    """Sets of security groups, with the number of ports that are in each."""
    vnis: Counter[int] = field(default_factory=Counter)
    """VPCs, with the number of ports that are in each."""
    size: int = 0
    """Bytes of the encoded ports."""

    @property
    def groups(self) -> set[UUID]:
        """The security groups of all ports."""
        return {group for groups in self.sets for group in groups}

    def encoded(self) -> tuple[msgspec.Raw, ...]:
        """The ports as they are published."""
        return tuple([port.encoded for port in self.ports.values()])

    def put(self, ports: Iterable[Port]) -> None:
        """Take ports, new or changed."""
        for port in ports:
            self.drop(port.vnic_id)
            encoded, groups = _encoder.encode(port), port.security_groups
            self.ports[port.vnic_id] = HeldPort(
                msgspec.Raw(encoded), len(encoded), port.vni, groups
            )
            self.sets[groups] += 1
            self.vnis[port.vni] += 1
            self.size += len(encoded)

    def drop(self, vnic_id: UUID) -> None:
        """Forget a port, if it is there."""
        left = self.ports.pop(vnic_id, None)
        if left is None:
            return
        self.size -= left.size
        _take_one(self.sets, left.security_groups)
        _take_one(self.vnis, left.vni)


class HeldPorts:
    """Those of the hosts that changed most recently, ``limit_bytes`` at most."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit = limit_bytes
        self._size = 0
        self._hosts: OrderedDict[UUID, Held] = OrderedDict()

    def missing(self, host_id: UUID, revision: int, changes: Sequence[Change]) -> set[UUID] | None:
        """The vNICs to read for the host at ``revision``; None: all that it has.

        ``changes``: those of the host that the outbox has, as of that revision.
        """
        held = self._hosts.get(host_id)
        if held is None or held.revision > revision:
            return None
        new = [change for change in changes if change.revision > held.revision]
        if sorted(change.revision for change in new) != [*range(held.revision + 1, revision + 1)]:
            return None  # some were published by another leader
        found: set[UUID] = set()
        for change in new:
            if change.vnics is None:
                return None
            found |= _ids(change.vnics)
        return found

    def update(
        self, host_id: UUID, revision: int, changed: set[UUID] | None, ports: Iterable[Port]
    ) -> Held:
        """The host at ``revision``: ``ports`` are those of ``changed`` that are there, or all."""
        before = self._hosts.pop(host_id, None)
        self._size -= before.size if before is not None else 0
        held = Held(revision) if before is None or changed is None else before
        for vnic_id in changed or ():
            held.drop(vnic_id)
        held.put(ports)
        held.revision = revision
        self._hosts[host_id] = held
        self._size += held.size
        return held

    def trim(self) -> None:
        """Forget the hosts that changed longest ago, down to the limit.

        Not between `missing` and `update`: what is to be read was said of what is held.
        """
        while self._size > self._limit:
            _, oldest = self._hosts.popitem(last=False)
            self._size -= oldest.size


def _take_one(counts: Counter[T], key: T) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


def _ids(packed: bytes) -> set[UUID]:
    return {
        UUID(bytes=packed[start : start + _ID_BYTES]) for start in range(0, len(packed), _ID_BYTES)
    }
