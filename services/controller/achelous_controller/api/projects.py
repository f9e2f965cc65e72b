"""/v1/projects: for operators; a project may look at itself."""

from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from achelous_controller.api import replies
from achelous_controller.api.context import Caller, Match, Operator, Store, Wanted
from achelous_controller.api.creation import Post
from achelous_controller.api.models.common import Name, Page
from achelous_controller.api.models.projects import (
    Project,
    ProjectCreate,
    ProjectUpdate,
    Quotas,
    Usage,
)
from achelous_controller.domain.errors import NotFound
from achelous_controller.domain.principal import Principal
from achelous_controller.store import objects, projects, quotas, schema

router = APIRouter(prefix="/v1/projects", tags=["projects"])


def _visible(caller: Principal, project_id: UUID) -> UUID:
    if not caller.operator and project_id != caller.project_id:
        raise NotFound("project", project_id)
    return project_id


@router.post("", status_code=201, response_model=Project)
async def create_project(body: ProjectCreate, _: Operator, post: Post) -> Response:
    """Make a project."""

    async def create(connection: AsyncConnection) -> Response:
        row = await projects.create(connection, body.name, body.quotas.model_dump())
        view = Project.model_validate(row)
        return replies.resource(view, 201, f"/v1/projects/{view.id}")

    return await post.run(create)


@router.get("", response_model=Page[Project])
async def list_projects(
    caller: Caller, database: Store, wanted: Wanted, name: Name | None = None
) -> Response:
    """List projects; a project sees itself."""
    filters = {"name": name, "id": caller.project_id}
    async with database.read() as connection:
        rows = await objects.page(connection, schema.projects, None, filters, wanted)
    return replies.page([Project.model_validate(row) for row in rows], wanted)


@router.get("/{project_id}", response_model=Project)
async def get_project(project_id: UUID, caller: Caller, database: Store) -> Response:
    """Show a project."""
    async with database.read() as connection:
        row = await objects.one(connection, schema.projects, _visible(caller, project_id), None)
    return replies.resource(Project.model_validate(row))


@router.get("/{project_id}/usage", response_model=Usage)
async def get_usage(project_id: UUID, caller: Caller, database: Store) -> Response:
    """Show what a project has, beside its quotas."""
    async with database.read() as connection:
        row = await objects.one(connection, schema.projects, _visible(caller, project_id), None)
        used = await quotas.used(connection, project_id)
    return replies.body(Usage(used=used, quotas=Quotas(**row.quotas)))


@router.patch("/{project_id}", response_model=Project)
async def update_project(
    project_id: UUID, body: ProjectUpdate, _: Operator, database: Store, match: Match
) -> Response:
    """Rename a project or change its quotas."""
    async with database.write() as connection:
        row = await objects.locked(connection, schema.projects, project_id, None, match)
        values = {
            "name": body.name or row.name,
            "quotas": row.quotas | body.quotas.model_dump(exclude_none=True),
        }
        row = await objects.change(connection, schema.projects, project_id, values)
    return replies.resource(Project.model_validate(row))


@router.delete("/{project_id}", status_code=204)
async def delete_project(project_id: UUID, _: Operator, database: Store, match: Match) -> Response:
    """Delete a project that has no VPCs, and its tokens."""
    async with database.write() as connection:
        await projects.remove(connection, project_id, match)
    await projects.forgotten()  # its tokens
    return replies.nothing()
