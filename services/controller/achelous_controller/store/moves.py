"""Moving instances to other hosts: cold, as what ran on the old host does not come along."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from achelous_controller.domain.errors import Conflict, Invalid
from achelous_controller.domain.instance_state import InstanceState, may_become
from achelous_controller.domain.instances import Instance
from achelous_controller.domain.placement import Room
from achelous_controller.store import capacity, changes
from achelous_controller.store.changes import Change, Due, Found, Host, Row
from achelous_controller.store.database import Database
from achelous_controller.store.references import refuse

_MOVABLE: Final = may_become(InstanceState.BUILDING)


@dataclass(frozen=True, slots=True)
class Move(Change):
    """A request to run an instance on another host."""

    host_id: UUID


async def move(database: Database, wanted: Sequence[Move]) -> list[Instance]:
    """Give the instances, each named once, to their new hosts, where they are BUILDING.

    One that is there already changes nothing. The old host's room is free at once; it is told to
    let go, and nobody waits for that: it may be down. Raises `NotFound`, `PreconditionFailed`,
    `Invalid` for a host that does not exist and `Conflict` for one that is draining or has no room
    and for an instance that is DELETING.
    """
    host_ids = [each.host_id for each in wanted]
    async with database.transaction(*changes.locking(wanted, host_ids)) as driver:
        found = await changes.read(driver, None, wanted, host_ids)
        due = _placed([each for each in wanted if _is_elsewhere(each, found)], found)
        return await changes.write(driver, wanted, found, due, InstanceState.BUILDING)


def _is_elsewhere(wanted: Move, found: Found) -> bool:
    row = found[wanted.instance_id][0]
    if row.state not in _MOVABLE:
        raise Conflict(f"instance {row.id} is being deleted")
    return row.host_id != wanted.host_id


def _placed(moving: Sequence[Move], found: Found) -> list[Due]:
    """The moves with their hosts, which have room for them one after another."""
    taken: Counter[UUID] = Counter()
    due = []
    for each in moving:
        rows = found[each.instance_id]
        room = _room(each, rows[0])
        taken[room.host_id] += len(rows)
        taken[rows[0].host_id] -= len(rows)
        if room.vnic_count + taken[room.host_id] > room.capacity:
            raise capacity.full_host("host_id", room, len(rows))
        due.append(Due(each.accepted_at, rows, Host(room.host_id, room.vtep, room.revision)))
    return due


def _room(wanted: Move, row: Row) -> Room:
    if row.goal_vtep is None:
        raise Invalid.field("host_id", str(wanted.host_id), "there is no such host")
    if row.goal_draining:
        refuse([capacity.draining_error("host_id", wanted.host_id)], Conflict)
    return Room(
        wanted.host_id, row.goal_vtep, row.goal_vnic_count, row.goal_capacity, row.goal_revision
    )
