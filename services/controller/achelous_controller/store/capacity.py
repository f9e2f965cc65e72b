"""Hosts for new instances, their room taken under their locks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from achelous_controller.domain.errors import Conflict, FieldError
from achelous_controller.domain.instances import Wanted
from achelous_controller.domain.layout import Indices, Layout, distinct, indices
from achelous_controller.domain.placement import HostFull, NoRoom, Room, assign
from achelous_controller.store.bulk import Found, Part
from achelous_controller.store.references import refuse

_ROOM: Final = "SELECT ROW(id, vtep, vnic_count, capacity, revision, draining) FROM hosts"

_NAMED: Final = f"{_ROOM} WHERE id = ANY({{}}::uuid[]) ORDER BY id FOR UPDATE"

_LEAST_LOADED: Final = f"""
    {_ROOM} WHERE vnic_count + {{}} <= capacity AND NOT draining
    ORDER BY vnic_count, id LIMIT {{}} FOR UPDATE SKIP LOCKED
"""
_ALL_WITH_ROOM: Final = f"""
    {_ROOM} WHERE vnic_count < capacity AND NOT draining OR id = ANY({{}}::uuid[])
    ORDER BY id FOR UPDATE
"""


@dataclass(frozen=True, slots=True)
class Reserved:
    """Hosts, locked, and which of them each instance is on, shape (n,)."""

    rooms: list[Room]
    of: Indices


def reading(layout: Layout, *, waiting: bool = False) -> list[Part]:
    """Reads and locks the hosts that the request names, and those to choose from.

    These are locked in passing: creations side by side take different hosts, and wait for none.
    If they have no room, `reserved` raises `NoRoom`; a transaction that has let go of all hosts
    then reads those of ``waiting``: all in order of id. No false refusal, and no deadlock.
    """
    specs = layout.wanted.specs
    named = list({spec.host_id for spec in specs if spec.host_id is not None})
    sizes = [len(spec.vnics) for spec in specs if spec.host_id is None]
    if waiting:
        return [Part("hosts", _ALL_WITH_ROOM, (named,))]
    parts = [Part("named", _NAMED, (named,))] if named else []
    if sizes:  # as could be needed at most; read last, as the others may be waited for
        parts.append(Part("hosts", _LEAST_LOADED, (min(sizes), len(sizes))))
    return parts


def reserved(layout: Layout, found: Found) -> Reserved:
    """The host of each instance, locked, of what `reading` has found; who calls this counts the
    vNICs. Raises `Invalid`, `Conflict`, and `NoRoom` if none of these hosts has room."""
    rooms = {row[0]: Room(*row) for row in (*found.get("named", ()), *found.get("hosts", ()))}
    named, which = distinct([spec.host_id for spec in layout.wanted.specs])
    _must_exist(layout.wanted, rooms)
    _must_take(layout.wanted, rooms)
    return _assigned(layout, rooms, named, which)


def no_room(wanted: Wanted, none: NoRoom) -> Conflict:
    """What to tell the caller of it."""
    where = wanted.field(none.index, "") or "the instance "
    return Conflict(
        f"no host has room for {where}{wanted.specs[none.index].name} with {none.vnics} vNICs:"
        " add hosts, end the draining of some, or delete instances"
    )


def _must_exist(wanted: Wanted, rooms: Mapping[UUID, Room]) -> None:
    refuse(
        [
            FieldError(wanted.field(index, "host_id"), str(spec.host_id), "there is no such host")
            for index, spec in enumerate(wanted.specs)
            if spec.host_id is not None and spec.host_id not in rooms
        ]
    )


def _must_take(wanted: Wanted, rooms: Mapping[UUID, Room]) -> None:
    refuse(
        [
            draining_error(wanted.field(index, "host_id"), spec.host_id)
            for index, spec in enumerate(wanted.specs)
            if spec.host_id is not None and rooms[spec.host_id].draining
        ],
        Conflict,
    )


def _assigned(
    layout: Layout,
    rooms: Mapping[UUID, Room],
    named: Sequence[UUID | None],
    which: Indices,
) -> Reserved:
    number = {host_id: index for index, host_id in enumerate(rooms)}
    given = indices(-1 if host_id is None else number[host_id] for host_id in named)[which]
    hosts = list(rooms.values())
    try:
        return Reserved(hosts, assign(hosts, layout.sizes, given))
    except HostFull as full:
        index = full.index
        field = layout.wanted.field(index, "host_id")
        raise full_host(field, full.host, int(layout.sizes[index])) from None


def full_host(field: str, host: Room, vnics: int) -> Conflict:
    """Why a host that ``field`` names cannot take so many more."""
    return Conflict.field(
        field,
        str(host.host_id),
        f"the host has no room left for {vnics} vNICs: its capacity is {host.capacity}",
    )


def draining_error(field: str, host_id: UUID) -> FieldError:
    """Why a host that ``field`` names takes no more."""
    return FieldError(
        field,
        str(host_id),
        "the host is draining: choose another, or set `draining` of the host to false",
    )
