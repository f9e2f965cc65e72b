"""Hosts for new instances, their room taken under their locks."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, any_, bindparam, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import Integer, Uuid

from achelous_controller.domain.errors import Conflict, FieldError
from achelous_controller.domain.instances import Wanted
from achelous_controller.domain.layout import Indices, Layout, distinct, indices
from achelous_controller.domain.placement import HostFull, NoRoom, Room, assign
from achelous_controller.store.references import refuse
from achelous_controller.store.schema import hosts

_ROOM: Final = select(
    hosts.c.id,
    hosts.c.vtep,
    hosts.c.vnic_count,
    hosts.c.capacity,
    hosts.c.revision,
    hosts.c.draining,
)
_IS_NAMED: Final = hosts.c.id == any_(bindparam("ids", type_=ARRAY(Uuid)))

_NAMED: Final = _ROOM.where(_IS_NAMED).order_by(hosts.c.id).with_for_update()

_LEAST_LOADED: Final = (
    _ROOM.where(
        hosts.c.vnic_count + bindparam("vnics", type_=Integer) <= hosts.c.capacity,
        ~hosts.c.draining,
    )
    .order_by(hosts.c.vnic_count, hosts.c.id)
    .limit(bindparam("limit", type_=Integer))
    .with_for_update(skip_locked=True)
)

_ALL_WITH_ROOM: Final = (
    _ROOM.where(or_((hosts.c.vnic_count < hosts.c.capacity) & ~hosts.c.draining, _IS_NAMED))
    .order_by(hosts.c.id)
    .with_for_update()
)


@dataclass(frozen=True, slots=True)
class Reserved:
    """Hosts, locked, and which of them each instance is on, shape (n,)."""

    rooms: list[Room]
    of: Indices


async def reserve(connection: AsyncConnection, layout: Layout) -> Reserved:
    """The host of each instance, locked; who calls this counts the vNICs. Raises `Conflict`.

    The first attempt passes over hosts that others have locked, so that creations side by side
    take different hosts. If the rest has no room, it lets go of what it holds and waits for all
    hosts in order of id: no false refusal, and no deadlock.
    """
    named, which = distinct([spec.host_id for spec in layout.wanted.specs])
    ids = {host_id for host_id in named if host_id is not None}
    sizes = layout.sizes[indices(host_id is None for host_id in named).astype(bool)[which]]
    if not len(sizes):
        return _assigned(layout, await _named(connection, layout, ids), named, which)
    attempt = await connection.begin_nested() if len(layout.wanted.specs) > 1 else None
    rooms = await _named(connection, layout, ids)
    values = {"vnics": int(sizes.min()), "limit": len(sizes)}  # as could be needed at most
    rooms |= await _read(connection, _LEAST_LOADED, values)
    try:
        reserved = _assigned(layout, rooms, named, which)
    except NoRoom:
        if attempt is not None:  # one instance alone has no host and locked none
            await attempt.rollback()
        rooms = await _read(connection, _ALL_WITH_ROOM, {"ids": list(ids)})
        _must_take(layout, rooms)
        try:
            return _assigned(layout, rooms, named, which)
        except NoRoom as none:
            raise _no_room(layout.wanted, none) from None
    if attempt is not None:
        await attempt.commit()
    return reserved


async def _named(
    connection: AsyncConnection, layout: Layout, ids: Collection[UUID]
) -> dict[UUID, Room]:
    """The hosts that the request names, which have to exist and to take vNICs."""
    if not ids:
        return {}
    rooms = await _read(connection, _NAMED, {"ids": list(ids)})
    if len(rooms) < len(ids):
        wanted = layout.wanted
        refuse(
            [
                FieldError(
                    wanted.field(index, "host_id"), str(spec.host_id), "there is no such host"
                )
                for index, spec in enumerate(wanted.specs)
                if spec.host_id is not None and spec.host_id not in rooms
            ]
        )
    _must_take(layout, rooms)
    return rooms


def _must_take(layout: Layout, rooms: Mapping[UUID, Room]) -> None:
    """Refuse a request that names a host which is draining."""
    draining = {host_id for host_id, room in rooms.items() if room.draining}
    for index, spec in enumerate(layout.wanted.specs) if draining else ():
        if spec.host_id in draining:
            raise draining_host(layout.wanted.field(index, "host_id"), spec.host_id)


async def lock(connection: AsyncConnection, host_ids: Collection[UUID]) -> dict[UUID, Room]:
    """These hosts, locked; those that do not exist are left out."""
    return await _read(connection, _NAMED, {"ids": list(host_ids)})


async def _read(
    connection: AsyncConnection, query: Select[Any], values: Mapping[str, object]
) -> dict[UUID, Room]:
    return {row.id: Room(*row) for row in await connection.execute(query, values)}


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


def draining_host(field: str, host_id: UUID) -> Conflict:
    """Why a host that ``field`` names takes no more."""
    return Conflict.field(
        field,
        str(host_id),
        "the host is draining: choose another, or set `draining` of the host to false",
    )


def _no_room(wanted: Wanted, none: NoRoom) -> Conflict:
    where = wanted.field(none.index, "") or "the instance "
    return Conflict(
        f"no host has room for {where}{wanted.specs[none.index].name} with {none.vnics} vNICs:"
        " add hosts, end the draining of some, or delete instances"
    )
