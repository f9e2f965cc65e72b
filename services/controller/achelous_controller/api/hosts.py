"""/v1/hosts: for operators."""

from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from achelous_controller.api import replies
from achelous_controller.api.context import Match, Operator, Store, Wanted
from achelous_controller.api.creation import Post
from achelous_controller.api.models.common import Name, Page
from achelous_controller.api.models.fleet import Host, HostCreate, HostUpdate
from achelous_controller.store import fleet, objects
from achelous_controller.store.schema import hosts

router = APIRouter(prefix="/v1/hosts", tags=["hosts"])


@router.post("", status_code=201, response_model=Host)
async def create_host(body: HostCreate, _: Operator, post: Post) -> Response:
    """Make a host known; its vSwitch is started with the id of the reply."""

    async def create(connection: AsyncConnection) -> Response:
        row = await fleet.create_host(connection, body.name, body.vtep, body.capacity)
        view = Host.model_validate(row)
        return replies.resource(view, 201, f"/v1/hosts/{view.id}")

    return await post.run(create)


@router.get("", response_model=Page[Host])
async def list_hosts(
    _: Operator, database: Store, wanted: Wanted, name: Name | None = None
) -> Response:
    """List hosts."""
    async with database.read() as connection:
        rows = await objects.page(connection, hosts, None, {"name": name}, wanted)
    return replies.page([Host.model_validate(row) for row in rows], wanted)


@router.get("/{host_id}", response_model=Host)
async def get_host(host_id: UUID, _: Operator, database: Store) -> Response:
    """Show a host."""
    async with database.read() as connection:
        row = await objects.one(connection, hosts, host_id, None)
    return replies.resource(Host.model_validate(row))


@router.patch("/{host_id}", response_model=Host)
async def update_host(
    host_id: UUID, body: HostUpdate, _: Operator, database: Store, match: Match
) -> Response:
    """Rename a host, change its capacity, or begin or end its draining."""
    async with database.write() as connection:
        row = await fleet.change_host(
            connection, host_id, match, body.name, body.capacity, body.draining
        )
    return replies.resource(Host.model_validate(row))


@router.delete("/{host_id}", status_code=204)
async def delete_host(host_id: UUID, _: Operator, database: Store, match: Match) -> Response:
    """Delete a host without instances."""
    async with database.write() as connection:
        await fleet.remove_host(connection, host_id, match)
    return replies.nothing()
