"""Hosts for new instances, their room taken under their locks."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, any_, bindparam, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import Integer, Uuid

from achelous_controller.domain.errors import Conflict, FieldError
from achelous_controller.domain.instances import InstanceSpec
from achelous_controller.domain.placement import HostFull, NoRoom, Room, assign
from achelous_controller.store.references import refuse
from achelous_controller.store.schema import hosts

_ROOM: Final = select(hosts.c.id, hosts.c.vtep, hosts.c.vnic_count, hosts.c.capacity)
_IS_NAMED: Final = hosts.c.id == any_(bindparam("ids", type_=ARRAY(Uuid)))

_NAMED: Final = _ROOM.where(_IS_NAMED).order_by(hosts.c.id).with_for_update()

_LEAST_LOADED: Final = (
    _ROOM.where(hosts.c.vnic_count + bindparam("vnics", type_=Integer) <= hosts.c.capacity)
    .order_by(hosts.c.vnic_count, hosts.c.id)
    .limit(bindparam("limit", type_=Integer))
    .with_for_update(skip_locked=True)
)

_ALL_WITH_ROOM: Final = (
    _ROOM.where(or_(hosts.c.vnic_count < hosts.c.capacity, _IS_NAMED))
    .order_by(hosts.c.id)
    .with_for_update()
)


async def reserve(connection: AsyncConnection, specs: Sequence[InstanceSpec]) -> list[Room]:
    """The host of each instance, locked; who calls this counts the vNICs. Raises `Conflict`.

    The first attempt passes over hosts that others have locked, so that creations side by side
    take different hosts. If the rest has no room, it lets go of what it holds and waits for all
    hosts in order of id: no false refusal, and no deadlock.
    """
    named = {"ids": list({spec.host_id for spec in specs if spec.host_id is not None})}
    attempt = await connection.begin_nested() if len(specs) > 1 else None
    rooms = await _read(connection, _NAMED, named) if named["ids"] else {}
    _must_exist(specs, rooms)
    sizes = [len(spec.vnics) for spec in specs if spec.host_id is None]
    if sizes:  # as many hosts as could be needed at most
        rooms |= await _read(connection, _LEAST_LOADED, {"vnics": min(sizes), "limit": len(sizes)})
    try:
        chosen = _assign(specs, rooms)
    except NoRoom:
        if attempt is not None:  # one instance alone has no host and locked none
            await attempt.rollback()
        rooms = await _read(connection, _ALL_WITH_ROOM, named)
        try:
            chosen = _assign(specs, rooms)
        except NoRoom as none:
            raise _no_room(specs[none.index], none.vnics) from None
    else:
        if attempt is not None:
            await attempt.commit()
    return [rooms[host_id] for host_id in chosen]


async def lock(connection: AsyncConnection, host_ids: Collection[UUID]) -> dict[UUID, Room]:
    """These hosts, locked; those that do not exist are left out."""
    return await _read(connection, _NAMED, {"ids": list(host_ids)})


async def _read(
    connection: AsyncConnection, query: Select[Any], values: Mapping[str, object]
) -> dict[UUID, Room]:
    return {
        row.id: Room(row.id, row.vtep, row.vnic_count, row.capacity)
        for row in await connection.execute(query, values)
    }


def _must_exist(specs: Sequence[InstanceSpec], rooms: Mapping[UUID, Room]) -> None:
    refuse(
        [
            FieldError(f"{spec.field}host_id", str(spec.host_id), "there is no such host")
            for spec in specs
            if spec.host_id is not None and spec.host_id not in rooms
        ]
    )


def _assign(specs: Sequence[InstanceSpec], rooms: Mapping[UUID, Room]) -> list[UUID]:
    sizes = [len(spec.vnics) for spec in specs]
    try:
        return assign(list(rooms.values()), sizes, [spec.host_id for spec in specs])
    except HostFull as full:
        spec, host = specs[full.index], full.host
        raise full_host(spec.field, host, len(spec.vnics)) from None


def full_host(field: str, host: Room, vnics: int) -> Conflict:
    """Why a host that was named cannot take so many more; ``field``: of the spec that named it."""
    return Conflict.field(
        f"{field}host_id",
        str(host.host_id),
        f"the host has no room left for {vnics} vNICs: its capacity is {host.capacity}",
    )


def _no_room(spec: InstanceSpec, vnics: int) -> Conflict:
    return Conflict(
        f"no host has room for {spec.field or 'the instance '}{spec.name} with {vnics} vNICs:"
        " add hosts or delete instances"
    )
