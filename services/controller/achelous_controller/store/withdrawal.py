"""Withdrawing instances: routes and ports go now, rows when all let go."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.instance_state import InstanceState, may_become
from achelous_controller.domain.instances import Instance
from achelous_controller.store import changes
from achelous_controller.store.changes import Change, Due

_LEAVING: Final = may_become(InstanceState.DELETING)


async def withdraw(
    connection: AsyncConnection, project_id: UUID | None, wanted: Sequence[Change]
) -> list[Instance]:
    """Take the instances' routes and ports away; each instance is named once.

    One that is DELETING stays so, and changes nothing. Raises `NotFound` and `PreconditionFailed`.
    """
    locked = await changes.lock(connection, project_id, wanted)
    due = []
    for each in wanted:
        rows = locked.rows[each.instance_id]
        if rows[0].state in _LEAVING:
            due.append(Due(each.accepted_at, rows, rows[0].host_id, rows[0].vtep))
    left = await changes.write(connection, locked, due, InstanceState.DELETING) if due else {}
    return [
        left.get(each.instance_id) or changes.as_locked(locked.rows[each.instance_id])
        for each in wanted
    ]
