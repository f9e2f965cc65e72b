"""Documents of hosts from what is held of their ports and what changed since."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from achelous_controller.programming.documents import (
    NAMED,
    OF_HOSTS,
    Identity,
    document_of,
    read_ports,
    read_preprogrammed,
    read_rules,
    snapshot,
)
from achelous_controller.programming.held_ports import Change, Held, HeldPorts
from achelous_shared.messages import HostDocument, Port, SecurityRule

_HOSTS: Final = text("""
    SELECT id, revision FROM hosts WHERE id = ANY(CAST(:hosts AS uuid[])) ORDER BY id
""")
_CHANGES: Final = text("""
    SELECT id, host_id, revision, vnics FROM outbox WHERE host_id = ANY(CAST(:hosts AS uuid[]))
""")


@dataclass(frozen=True, slots=True)
class Fresh:
    """A host's document, and the rows of the outbox that it covers."""

    document: HostDocument
    rows: tuple[int, ...]


async def read_fresh(engine: AsyncEngine, hosts: Sequence[UUID], held: HeldPorts) -> list[Fresh]:
    """The documents of these hosts as the database stands now; none for a host that is gone.

    Their ports are encoded already. ``held`` is brought up to date.
    """
    held.trim()
    async with snapshot(engine) as connection:
        revisions = {row.id: row.revision for row in await connection.execute(_HOSTS, _of(hosts))}
        changes: dict[UUID, list[Change]] = defaultdict(list)
        for row in await connection.execute(_CHANGES, _of(hosts)):
            changes[row.host_id].append(Change(*row))
        missing = {
            host: held.missing(host, revision, changes[host])
            for host, revision in revisions.items()
        }
        ports = await _read(connection, missing)
        current = {
            host: held.update(host, revision, missing[host], ports.get(host, ()))
            for host, revision in revisions.items()
        }
        named = {group for now in current.values() for group in now.groups}
        rules, identities = await read_rules(connection, named)
        vnis = {vni for now in current.values() for vni in now.vnis}
        preprogrammed = await read_preprogrammed(connection, vnis)
    return [
        Fresh(
            document(host, now, rules, identities, preprogrammed),
            tuple(row.id for row in changes[host]),
        )
        for host, now in current.items()
    ]


def document(
    host: UUID,
    now: Held,
    rules: Mapping[UUID, Sequence[SecurityRule]],
    identities: Sequence[Identity],
    preprogrammed: frozenset[int],
) -> HostDocument:
    """The document of a host with these ports: `document_of`, its ports encoded already."""
    ports = cast(tuple[Port, ...], now.encoded())  # what encodes it takes either
    ahead = preprogrammed & now.vnis.keys()
    return document_of(host, now.revision, ports, now.groups, rules, identities, ahead)


def _of(hosts: Sequence[UUID]) -> dict[str, Sequence[UUID]]:
    return {"hosts": hosts}


async def _read(
    connection: AsyncConnection, missing: dict[UUID, set[UUID] | None]
) -> dict[UUID, list[Port]]:
    """The ports that are not held, all of a host or some."""
    whole = [host for host, vnics in missing.items() if vnics is None]
    some = [vnic for vnics in missing.values() for vnic in vnics or ()]
    found = await read_ports(connection, NAMED, some) if some else {}
    # later, as a vNIC that one host names may have moved to another, which is read whole
    return found | (await read_ports(connection, OF_HOSTS, whole) if whole else {})
