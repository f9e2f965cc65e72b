"""What projects use, counted in the transaction that uses it or gives it back."""

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.errors import NotFound, QuotaExceeded
from achelous_controller.domain.quotas import DEFAULTS, Resource
from achelous_controller.store.schema import projects, usage


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
    for resource, amount in amounts.items():
        quota = row.quotas.get(resource, DEFAULTS[resource])
        used = row._mapping[resource]  # noqa: SLF001  a row's public view of its columns
        if amount > 0 and used > quota:
            raise QuotaExceeded(resource, quota, used - amount, amount)


async def give_back(
    connection: AsyncConnection, project_id: UUID, amounts: Mapping[Resource, int]
) -> None:
    """Count what a project no longer has."""
    await spend(connection, project_id, {name: -amount for name, amount in amounts.items()})


async def used(connection: AsyncConnection, project_id: UUID) -> dict[Resource, int]:
    """What a project uses of each resource."""
    row = (await connection.execute(select(usage).where(usage.c.project_id == project_id))).one()
    return {resource: row._mapping[resource] for resource in Resource}  # noqa: SLF001
