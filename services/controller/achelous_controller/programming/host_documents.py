"""Documents of hosts, whole or what changed, from what is held of their ports and what is new."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast
from uuid import UUID

from achelous_controller.programming import outbox
from achelous_controller.programming.documents import (
    NAMED,
    OF_HOSTS,
    Identity,
    ReadPorts,
    read_ports,
    read_rules,
    rules_of,
)
from achelous_controller.programming.held_ports import Change, Held, HeldPort, HeldPorts
from achelous_controller.programming.outbox import DocumentRow
from achelous_shared.messages import HostChanges, HostDocument, Port, SecurityRule

PORTS_AT_ONCE: Final = 8192
"""Read for one batch of documents: some 50 ms of this process."""


@dataclass(slots=True)
class Wanted:
    """A document of a host that is to be published, as of one moment."""

    revision: int
    """0: the host is gone."""
    again: bool
    """Also if nothing changed."""
    changes: list[Change] = field(default_factory=list)
    """The host's, all that the outbox has."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """What a host is to be told, and the rows of the outbox that it covers."""

    message: HostDocument | HostChanges
    rows: tuple[int, ...]
    held: Held

    def published(self) -> None:
        """It is on the stream."""
        if isinstance(self.message, HostDocument):
            self.held.published()


async def wanted_of(
    connection: Any, rows: Sequence[DocumentRow], again: Collection[UUID]
) -> dict[UUID, Wanted]:
    """Hosts whose documents changed by these rows, the longest ago first, with those asked for
    ``again``. ``connection`` sees the snapshot in which the rows were read."""
    if again or len(rows) == outbox.BATCH_DOCUMENTS:  # of some there is more than was read
        hosts = {row.host_id: None for row in rows if row.host_id is not None}
        rows = await outbox.read_of_hosts(connection, [*again, *(hosts.keys() - again)])
    wanted: dict[UUID, Wanted] = {}
    for row in rows:
        if row.host_id is None:
            continue
        if (want := wanted.get(row.host_id)) is None:
            want = wanted[row.host_id] = Wanted(row.now or 0, row.host_id in again)
        if row.id:
            want.changes.append(Change(row.id, row.host_id, row.revision, row.vnics))
    return wanted


async def read_fresh(
    connection: Any,
    wanted: Mapping[UUID, Wanted],
    held: HeldPorts,
    named: ReadPorts | None = None,
) -> list[Fresh]:
    """What to tell these hosts, in order: the first ones, as far as `PORTS_AT_ONCE` goes, and none
    for a host that is gone.

    Ports are encoded already. ``held`` is brought up to date. ``connection`` as of `wanted_of`;
    ``named``: the ports of all vNICs that are named in ``wanted``, if they were read already.
    """
    missing = _missing(wanted, held)
    current = await _update(connection, wanted, missing, held, named)
    untold = {host: now.untold() for host, now in current.items()}
    groups = set().union(*untold.values())
    rules, identities = await read_rules(connection, groups) if groups else ({}, [])
    return [
        Fresh(
            message_of(host, now, untold[host], rules, identities),
            tuple(change.id for change in wanted[host].changes),
            now,
        )
        for host, now in current.items()
    ]


def message_of(
    host: UUID,
    now: Held,
    untold: Collection[UUID],
    rules: Mapping[UUID, Sequence[SecurityRule]],
    identities: Sequence[Identity],
) -> HostDocument | HostChanges:
    """The whole document, or what changed since the last; of ``untold`` groups it has the rules."""
    groups, members = rules_of(untold, rules, identities)
    if now.whole is None:
        return HostDocument(
            host_id=host,
            revision=now.revision,
            ports=_encoded(now.ports.values()),
            security_groups=groups,
            identities=members,
            preprogrammed=_preprogrammed(now.ports.values()),
        )
    changed = now.changed()
    return HostChanges(
        host_id=host,
        base=now.whole.revision,
        revision=now.revision,
        ports=_encoded(changed),
        gone=now.gone(),
        security_groups=groups,
        identities=members,
        preprogrammed=_preprogrammed(changed),
    )


def _encoded(ports: Iterable[HeldPort]) -> tuple[Port, ...]:
    # what encodes a message takes either
    return cast(tuple[Port, ...], tuple([port.encoded for port in ports]))


def _preprogrammed(ports: Iterable[HeldPort]) -> tuple[int, ...]:
    return tuple(sorted({port.vni for port in ports if port.preprogrammed}))


def _missing(wanted: Mapping[UUID, Wanted], held: HeldPorts) -> dict[UUID, set[UUID] | None]:
    """Of the first hosts the vNICs to read; None: all of the host."""
    missing: dict[UUID, set[UUID] | None] = {}
    room = PORTS_AT_ONCE
    for host, want in wanted.items():
        if not want.revision:
            continue
        vnics = held.missing(host, want.revision, want.changes, again=want.again)
        room -= held.ports_of(host) if vnics is None else len(vnics)
        if room < 0 and missing:
            break
        missing[host] = vnics
    return missing


async def _update(
    connection: Any,
    wanted: Mapping[UUID, Wanted],
    missing: Mapping[UUID, set[UUID] | None],
    held: HeldPorts,
    named: ReadPorts | None,
) -> dict[UUID, Held]:
    whole = [host for host, vnics in missing.items() if vnics is None]
    all_of = await read_ports(connection, OF_HOSTS, whole)
    if named is None:
        some = [vnic for vnics in missing.values() for vnic in vnics or ()]
        named = await read_ports(connection, NAMED, some)
    current: dict[UUID, Held] = {}
    for host, vnics in missing.items():
        read = all_of if vnics is None else named
        ports = [
            port for port in read.of.get(host, ()) if vnics is None or port.vnic_id in vnics
        ]  # one that is named by another host may be on this one, where it is not new
        current[host] = held.update(host, wanted[host].revision, vnics, ports, read.preprogrammed)
    return current
