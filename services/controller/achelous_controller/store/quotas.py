"""What projects use, counted in the transaction that uses it or gives it back."""

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

import asyncpg
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.errors import NotFound, QuotaExceeded
from achelous_controller.domain.quotas import DEFAULTS, Resource
from achelous_controller.store.bulk import Part
from achelous_controller.store.schema import projects, usage

_OF_INSTANCES: Final = (Resource.INSTANCES, Resource.VNICS)


async def spend(
    connection: AsyncConnection, project_id: UUID, amounts: Mapping[Resource, int]
) -> None:
    """Count what a project takes; raises `QuotaExceeded`, and `NotFound` for no such project.

    The row stays locked: call it last.
    """
    columns = [usage.c[resource] for resource in amounts]
    row = (
        await connection.execute(
            update(usage)
            .where(usage.c.project_id == project_id, projects.c.id == usage.c.project_id)
            .values({usage.c[name]: usage.c[name] + amount for name, amount in amounts.items()})
            .returning(*columns, projects.c.quotas)
        )
    ).one_or_none()
    if row is None:
        raise NotFound("project", project_id)
    used = {resource: row._mapping[resource] for resource in amounts}  # noqa: SLF001  a row's public view of its columns
    _check(used, row.quotas, amounts)


def _check(
    used: Mapping[Resource, int], quotas: Mapping[str, int], amounts: Mapping[Resource, int]
) -> None:
    for resource, amount in amounts.items():
        quota = quotas.get(resource, DEFAULTS[resource])
        if amount > 0 and used[resource] > quota:
            raise QuotaExceeded(resource, quota, used[resource] - amount, amount)


_SPENT: Final = """
    UPDATE usage AS u SET instances = u.instances + wanted.instances, vnics = u.vnics + wanted.vnics
    FROM unnest({}::uuid[], {}::bigint[], {}::bigint[]) AS wanted (project_id, instances, vnics)
    JOIN projects AS p ON p.id = wanted.project_id
    WHERE u.project_id IN (
        SELECT project_id FROM usage WHERE project_id = ANY({}) ORDER BY project_id FOR UPDATE
    ) AND u.project_id = wanted.project_id
    RETURNING u.project_id, u.instances, u.vnics, p.quotas
"""


def spending(amounts: Mapping[UUID, Mapping[Resource, int]]) -> Part:
    """Counts instances and vNICs that projects take; `check_spent` looks at what it returns."""
    ids = list(amounts)
    counted = [[of[kind] for of in amounts.values()] for kind in _OF_INSTANCES]
    return Part("spent", _SPENT, (ids, *counted, ids))


def check_spent(
    rows: Sequence[asyncpg.Record], amounts: Mapping[UUID, Mapping[Resource, int]]
) -> None:
    """Raises `QuotaExceeded`, and `NotFound` for a project that there is not."""
    found = {row["project_id"]: row for row in rows}
    for project_id, wanted in amounts.items():
        if project_id not in found:
            raise NotFound("project", project_id)
        row = found[project_id]
        _check({resource: row[resource] for resource in wanted}, row["quotas"], wanted)


async def give_back(
    connection: AsyncConnection, project_id: UUID, amounts: Mapping[Resource, int]
) -> None:
    """Count what a project no longer has."""
    await spend(connection, project_id, {name: -amount for name, amount in amounts.items()})


async def used(connection: AsyncConnection, project_id: UUID) -> dict[Resource, int]:
    """What a project uses of each resource."""
    row = (await connection.execute(select(usage).where(usage.c.project_id == project_id))).one()
    return {resource: row._mapping[resource] for resource in Resource}  # noqa: SLF001
