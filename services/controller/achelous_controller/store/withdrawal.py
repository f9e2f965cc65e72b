"""Withdrawing instances: routes and ports go now, rows when all let go."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from achelous_controller.domain.instance_state import InstanceState, may_become
from achelous_controller.domain.instances import Instance
from achelous_controller.store import changes
from achelous_controller.store.changes import Change, Due, Host
from achelous_controller.store.database import Database

_LEAVING: Final = may_become(InstanceState.DELETING)


async def withdraw(
    database: Database, project_id: UUID | None, wanted: Sequence[Change]
) -> list[Instance]:
    """Take the instances' routes and ports away; each instance is named once.

    One that is DELETING stays so, and changes nothing. Raises `NotFound` and `PreconditionFailed`.
    """
    async with database.transaction(*changes.locking(wanted)) as driver:
        found = await changes.read(driver, project_id, wanted)
        due = [
            Due(each.accepted_at, rows, Host(rows[0].host_id, rows[0].vtep, rows[0].host_revision))
            for each in wanted
            if (rows := found[each.instance_id])[0].state in _LEAVING
        ]
        return await changes.write(driver, wanted, found, due, InstanceState.DELETING)
