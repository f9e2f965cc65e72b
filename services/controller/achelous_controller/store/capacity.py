"""Hosts for new instances, their room taken under their locks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, bindparam, func, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import Integer, Uuid

from achelous_controller.domain.errors import Conflict, FieldError
from achelous_controller.domain.instances import InstanceSpec
from achelous_controller.domain.placement import HostFull, NoRoom, Room, assign
from achelous_controller.store.references import refuse
from achelous_controller.store.schema import hosts

_ROOM: Final = select(hosts.c.id, hosts.c.vtep, hosts.c.vnic_count, hosts.c.capacity)


async def reserve(connection: AsyncConnection, specs: Sequence[InstanceSpec]) -> list[Room]:
    """The host of each instance, locked, the instance's vNICs counted. Raises `Conflict`.

    The first attempt passes over hosts that others have locked, so that creations side by side
    take different hosts. If the rest has no room, it lets go of what it holds and waits for all
    hosts in order of id: no false refusal, and no deadlock.
    """
    named = {spec.host_id for spec in specs if spec.host_id is not None}
    attempt = await connection.begin_nested()
    rooms = await _read(connection, _named(named))
    rooms |= await _read(connection, _least_loaded(specs))
    _must_exist(specs, rooms)
    try:
        chosen = _assign(specs, rooms)
    except NoRoom:
        await attempt.rollback()
        rooms = await _read(connection, _all_with_room(named))
        try:
            chosen = _assign(specs, rooms)
        except NoRoom as none:
            raise _no_room(specs[none.index], none.vnics) from None
    else:
        await attempt.commit()
    taken: Counter[UUID] = Counter()
    for spec, host_id in zip(specs, chosen, strict=True):
        taken[host_id] += len(spec.vnics)
    await _count(connection, taken)
    return [rooms[host_id] for host_id in chosen]


async def release(connection: AsyncConnection, vnics: Mapping[UUID, int]) -> None:
    """Give back the room of as many vNICs of hosts that are locked."""
    await _count(connection, {host_id: -count for host_id, count in vnics.items()})


async def _read(connection: AsyncConnection, query: Select[Any]) -> dict[UUID, Room]:
    return {
        row.id: Room(row.id, row.vtep, row.vnic_count, row.capacity)
        for row in await connection.execute(query)
    }


def _named(host_ids: set[UUID]) -> Select[Any]:
    return _ROOM.where(hosts.c.id.in_(host_ids)).order_by(hosts.c.id).with_for_update()


def _least_loaded(specs: Sequence[InstanceSpec]) -> Select[Any]:
    """As many hosts as could be needed at most, those with the fewest vNICs."""
    sizes = [len(spec.vnics) for spec in specs if spec.host_id is None]
    return (
        _ROOM.where(hosts.c.vnic_count + min(sizes, default=1) <= hosts.c.capacity)
        .order_by(hosts.c.vnic_count, hosts.c.id)
        .limit(len(sizes))
        .with_for_update(skip_locked=True)
    )


def _all_with_room(host_ids: set[UUID]) -> Select[Any]:
    has_room = hosts.c.vnic_count < hosts.c.capacity
    query = _ROOM.where(or_(has_room, hosts.c.id.in_(host_ids)))
    return query.order_by(hosts.c.id).with_for_update()


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
        raise Conflict.field(
            f"{spec.field}host_id",
            str(host.host_id),
            f"the host has no room left for {len(spec.vnics)} vNICs: its capacity is"
            f" {host.capacity}",
        ) from None


def _no_room(spec: InstanceSpec, vnics: int) -> Conflict:
    return Conflict(
        f"no host has room for {spec.field or 'the instance '}{spec.name} with {vnics} vNICs:"
        " add hosts or delete instances"
    )


async def _count(connection: AsyncConnection, vnics: Mapping[UUID, int]) -> None:
    ids = bindparam("ids", list(vnics), type_=ARRAY(Uuid))
    counts = bindparam("counts", list(vnics.values()), type_=ARRAY(Integer))
    changes = func.unnest(ids, counts).table_valued("id", "count").render_derived()
    await connection.execute(
        update(hosts)
        .where(hosts.c.id == changes.c.id)
        .values(vnic_count=hosts.c.vnic_count + changes.c.count)
    )
