"""What hosts were told, and their ports as they are published: so a change costs what changed.

A host's document has all of its ports, hundreds of them, and most changes concern one. The rows of
the outbox say which (`schema.outbox`), and each takes the host's revision one further: what is held
of a host stands for a revision, and is good as long as the rows that follow it are all there.

The whole document is published now and then, and between two of them what changed since the first
(`messages.HostChanges`). For that no more is needed than the ports that changed; the others are
held to spare reading them for the next whole, as long as there is room.
"""

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from achelous_controller.domain.ids import unpacked
from achelous_shared.messages import Port

LIMIT_BYTES: Final = 128 * 1024 * 1024
"""Of encoded ports: some 300,000, which take twice as much memory."""

_WHOLE_TO_CHANGE: Final = 8
"""With n ports a whole follows after c changes that cost c²/2 ports' encoding: least at c² = 2n if
a port of a whole costs as much. One that has to be read costs some ten times that; this is between.
"""
_PORTS_OF_UNKNOWN: Final = 500
_encoder: Final = msgspec.msgpack.Encoder()


class Change(NamedTuple):
    """A row of the outbox about a host. ``vnics``: ids that came or went, None: anything."""

    id: int
    host_id: UUID
    revision: int
    vnics: bytes | None


class HeldPort(msgspec.Struct, frozen=True, gc=False):
    """A port as it is published, its VPC, and the security groups that it names.

    Of these there are hundreds of thousands, and their ids are bytes: nothing that the garbage
    collector would go through, while nobody is served.
    """

    encoded: msgspec.Raw
    size: int
    vni: int
    preprogrammed: bool
    security_groups: tuple[UUID, ...]


@dataclass(slots=True)
class Whole:
    """The last whole document that is on the stream, as far as changes stand on it."""

    revision: int
    ports: int
    told: Counter[UUID]
    """Security groups whose rules it has -> ports that are in the group, at least. A host hears of
    changed rules only while a port of it is in the group: at 0 the rules are to be told anew."""
    more: bool = False
    """Whether ports that changed since may be in other groups."""

    def joined(self, groups: Iterable[UUID]) -> None:
        """A port came into these groups."""
        for group in groups:
            if group in self.told:
                self.told[group] += 1
            else:
                self.more = True

    def left(self, groups: Iterable[UUID]) -> None:
        """A port that was in these groups, or may have been, left them."""
        for group in groups:
            self.told[group] -= 1
            if self.told[group] <= 0:
                del self.told[group]
                self.more = True


@dataclass(slots=True)
class Held:
    """The ports of a host at a revision of its document: all, or those that changed."""

    revision: int
    all: bool = True
    ports: dict[bytes, HeldPort] = field(default_factory=dict)
    """By id of vNIC."""
    size: int = 0
    """Bytes of the encoded ports."""
    whole: Whole | None = None
    """None: a whole document is to be published next."""
    since: dict[bytes, None] = field(default_factory=dict)
    """vNICs that came, changed or went since ``whole``, in that order."""

    def put(self, ports: Iterable[Port], preprogrammed: Collection[int]) -> None:
        """Take ports that are new, or that `drop` was told of."""
        for port in ports:
            vnic, encoded, groups = port.vnic_id.bytes, _encoder.encode(port), port.security_groups
            self.ports[vnic] = HeldPort(
                msgspec.Raw(encoded), len(encoded), port.vni, port.vni in preprogrammed, groups
            )
            self.size += len(encoded)
            if self.whole is not None:
                self.since.pop(vnic, None)
                self.since[vnic] = None  # behind the others, as in ``ports``
                self.whole.joined(groups)

    def drop(self, vnic_id: UUID) -> None:
        """A vNIC went, or is another one: `put` has it if it is there."""
        vnic = vnic_id.bytes
        left = self.ports.pop(vnic, None)
        if left is not None:
            self.size -= left.size
        if self.whole is None:
            return
        self.since[vnic] = None
        unknown = left is None and not self.all
        self.whole.left(list(self.whole.told) if unknown else _groups(left))

    def changed(self) -> list[HeldPort]:
        """The ports that the host does not have from ``whole``, in their order."""
        return [self.ports[vnic] for vnic in self.since if vnic in self.ports]

    def gone(self) -> tuple[UUID, ...]:
        """vNICs that left since."""
        return tuple(UUID(bytes=vnic) for vnic in self.since if vnic not in self.ports)

    def untold(self) -> set[UUID]:
        """Security groups of its ports whose rules the next message has to have."""
        if self.whole is None:
            return {group for port in self.ports.values() for group in port.security_groups}
        if not self.whole.more:
            return set()
        told = self.whole.told
        return {
            group for port in self.changed() for group in port.security_groups if group not in told
        }

    def published(self) -> None:
        """A whole document of this revision is on the stream."""
        told = Counter(group for port in self.ports.values() for group in port.security_groups)
        self.whole = Whole(self.revision, len(self.ports), told)
        self.since.clear()

    def needs_whole(self, changing: Iterable[UUID] = ()) -> bool:
        """Whether these changes on top are better published by a whole document."""
        if self.whole is None:
            return True
        count = len(self.since.keys() | {vnic.bytes for vnic in changing})
        return count * 2 > self.whole.ports or count**2 > _WHOLE_TO_CHANGE * self.whole.ports

    def shed(self) -> None:
        """Keep the ports that changed alone."""
        self.all = False
        self.ports = {vnic: self.ports[vnic] for vnic in self.since if vnic in self.ports}
        self.size = sum(port.size for port in self.ports.values())


class HeldPorts:
    """Of every host that changed in this term; ``limit_bytes`` of encoded ports at most."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit = limit_bytes
        self._size = 0
        self._hosts: OrderedDict[UUID, Held] = OrderedDict()
        """Those that changed longest ago first."""
        self._unshed: OrderedDict[UUID, None] = OrderedDict()
        """Those of which all ports are held, likewise."""

    def missing(
        self, host_id: UUID, revision: int, changes: Sequence[Change], *, again: bool = False
    ) -> set[UUID] | None:
        """The vNICs to read for the host at ``revision``; None: all that it has.

        ``changes``: those of the host that the outbox has, as of that revision. ``again``: the host
        does not run what it was told, and gets a whole document if there is nothing else to tell.
        """
        held = self._hosts.get(host_id)
        if held is None or held.revision > revision:
            return None
        new = [change for change in changes if change.revision > held.revision]
        if sorted(change.revision for change in new) != [*range(held.revision + 1, revision + 1)]:
            return None  # some were published by another leader
        if again and not new:
            held.whole = None
        found: set[UUID] = set()
        for change in new:
            if change.vnics is None:
                return None
            found.update(unpacked(change.vnics))
        return found if held.all or not held.needs_whole(found) else None

    def ports_of(self, host_id: UUID) -> int:
        """About how many ports a host has."""
        held = self._hosts.get(host_id)
        whole = held.whole if held is not None else None
        return whole.ports if whole is not None else _PORTS_OF_UNKNOWN

    def update(
        self,
        host_id: UUID,
        revision: int,
        changed: set[UUID] | None,
        ports: Iterable[Port],
        preprogrammed: Collection[int] = (),
    ) -> Held:
        """The host at ``revision``: ``ports`` are those of ``changed`` that are there, or all.

        ``preprogrammed``: VNIs, of these ports at least.
        """
        before = self._hosts.pop(host_id, None)
        self._size -= before.size if before is not None else 0
        held = Held(revision) if before is None or changed is None else before
        for vnic_id in changed or ():
            held.drop(vnic_id)
        held.put(ports, preprogrammed)
        held.revision = revision
        if held.needs_whole():
            held.whole = None
        self._hosts[host_id] = held
        self._size += held.size
        if held.all:
            self._unshed[host_id] = None
            self._unshed.move_to_end(host_id)
        return held

    def lost(self, host_ids: Iterable[UUID]) -> None:
        """Publish whole documents of these hosts next: those that there were are not on the stream.

        Like `trim` not between `missing` and `update`.
        """
        for host_id in host_ids:
            held = self._hosts.get(host_id)
            if held is not None:
                held.whole = None

    def trim(self) -> None:
        """Down to the limit: of the hosts that changed longest ago first all ports but those that
        changed, then everything.

        Not between `missing` and `update`: what is to be read was said of what is held.
        """
        while self._size > self._limit and self._unshed:
            oldest, _ = self._unshed.popitem(last=False)
            held = self._hosts[oldest]
            self._size -= held.size
            held.shed()
            self._size += held.size
        while self._size > self._limit:
            _, forgotten = self._hosts.popitem(last=False)
            self._size -= forgotten.size


def _groups(port: HeldPort | None) -> tuple[UUID, ...]:
    return port.security_groups if port is not None else ()
