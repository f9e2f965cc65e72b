"""/v1/vpcs."""

from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from achelous_controller.api import replies
from achelous_controller.api.context import Caller, Match, Store, Wanted
from achelous_controller.api.creation import Post
from achelous_controller.api.models.common import Name, Page
from achelous_controller.api.models.vpcs import Vpc, VpcCreate, VpcUpdate
from achelous_controller.store import objects, schema, vpcs

router = APIRouter(prefix="/v1/vpcs", tags=["vpcs"])


@router.post("", status_code=201, response_model=Vpc)
async def create_vpc(body: VpcCreate, caller: Caller, post: Post) -> Response:
    """Make a VPC, with a security group named default."""
    project_id = caller.project(body.project_id)

    async def create(connection: AsyncConnection) -> Response:
        row = await vpcs.create(connection, project_id, body.name, body.programming_model)
        view = Vpc.model_validate(row)
        return replies.resource(view, 201, f"/v1/vpcs/{view.id}")

    return await post.run(create)


@router.get("", response_model=Page[Vpc])
async def list_vpcs(
    caller: Caller,
    database: Store,
    wanted: Wanted,
    name: Name | None = None,
    project_id: UUID | None = None,
) -> Response:
    """List VPCs."""
    filters = {"name": name, "project_id": project_id}
    async with database.read() as connection:
        rows = await objects.page(connection, schema.vpcs, caller.project_id, filters, wanted)
    return replies.page([Vpc.model_validate(row) for row in rows], wanted)


@router.get("/{vpc_id}", response_model=Vpc)
async def get_vpc(vpc_id: UUID, caller: Caller, database: Store) -> Response:
    """Show a VPC."""
    async with database.read() as connection:
        row = await objects.one(connection, schema.vpcs, vpc_id, caller.project_id)
    return replies.resource(Vpc.model_validate(row))


@router.patch("/{vpc_id}", response_model=Vpc)
async def update_vpc(
    vpc_id: UUID, body: VpcUpdate, caller: Caller, database: Store, match: Match
) -> Response:
    """Rename a VPC."""
    async with database.write() as connection:
        row = await objects.locked(connection, schema.vpcs, vpc_id, caller.project_id, match)
        vpcs.must_keep_model(row, body.programming_model)
        row = await objects.change(connection, schema.vpcs, vpc_id, {"name": body.name or row.name})
    return replies.resource(Vpc.model_validate(row))


@router.delete("/{vpc_id}", status_code=204)
async def delete_vpc(vpc_id: UUID, caller: Caller, database: Store, match: Match) -> Response:
    """Delete a VPC that has no subnets and no security groups but its default one."""
    async with database.write() as connection:
        await vpcs.remove(connection, vpc_id, caller.project_id, match)
    return replies.nothing()
