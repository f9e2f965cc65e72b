"""Moving instances to other hosts: cold, as what ran on the old host does not come along."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.errors import Conflict, Invalid
from achelous_controller.domain.instance_state import InstanceState, may_become
from achelous_controller.domain.instances import Instance
from achelous_controller.domain.placement import Room
from achelous_controller.store import capacity, changes
from achelous_controller.store.changes import Change, Due, Locked

_MOVABLE: Final = may_become(InstanceState.BUILDING)


@dataclass(frozen=True, slots=True)
class Move(Change):
    """A request to run an instance on another host."""

    host_id: UUID


async def move(connection: AsyncConnection, wanted: Sequence[Move]) -> list[Instance]:
    """Give the instances, each named once, to their new hosts, where they are BUILDING.

    One that is there already changes nothing. The old host's room is free at once; it is told to
    let go, and nobody waits for that: it may be down. Raises `NotFound`, `PreconditionFailed`,
    `Invalid` for a host that does not exist and `Conflict` for one that is draining or has no room
    and for an instance that is DELETING.
    """
    locked = await changes.lock(connection, None, wanted)
    moving = [each for each in wanted if _is_elsewhere(each, locked)]
    if not moving:
        return [changes.as_locked(locked.rows[each.instance_id]) for each in wanted]
    due = await _placed(connection, locked, moving)
    moved = await changes.write(connection, locked, due, InstanceState.BUILDING)
    return [
        moved.get(each.instance_id) or changes.as_locked(locked.rows[each.instance_id])
        for each in wanted
    ]


def _is_elsewhere(wanted: Move, locked: Locked) -> bool:
    row = locked.rows[wanted.instance_id][0]
    if row.state not in _MOVABLE:
        raise Conflict(f"instance {row.id} is being deleted")
    return bool(row.host_id != wanted.host_id)


async def _placed(connection: AsyncConnection, locked: Locked, moving: Sequence[Move]) -> list[Due]:
    """The moves with their hosts, which have room for them one after another; all are locked."""
    rows = [locked.rows[each.instance_id] for each in moving]
    concerned = {each.host_id for each in moving} | {some[0].host_id for some in rows}
    rooms = await capacity.lock(connection, concerned)
    taken = {host_id: room.vnic_count for host_id, room in rooms.items()}
    due = []
    for each, some in zip(moving, rows, strict=True):
        room = _room(rooms, each.host_id)
        if taken[room.host_id] + len(some) > room.capacity:
            raise capacity.full_host("host_id", room, len(some))
        taken[room.host_id] += len(some)
        taken[some[0].host_id] -= len(some)
        due.append(Due(each.accepted_at, some, room.host_id, room.vtep))
    return due


def _room(rooms: Mapping[UUID, Room], host_id: UUID) -> Room:
    room = rooms.get(host_id)
    if room is None:
        raise Invalid.field("host_id", str(host_id), "there is no such host")
    if room.draining:
        raise capacity.draining_host("host_id", host_id)
    return room
