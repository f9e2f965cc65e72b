"""/v1/gateways: for operators."""

from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from achelous_controller.api import replies
from achelous_controller.api.context import Match, Operator, Store, Wanted
from achelous_controller.api.creation import Post
from achelous_controller.api.models.common import Name, Page
from achelous_controller.api.models.fleet import Gateway, GatewayCreate, GatewayUpdate
from achelous_controller.store import fleet, objects
from achelous_controller.store.schema import gateways

router = APIRouter(prefix="/v1/gateways", tags=["gateways"])


@router.post("", status_code=201, response_model=Gateway)
async def create_gateway(body: GatewayCreate, _: Operator, post: Post) -> Response:
    """Make a gateway known; it is started with the id of the reply."""

    async def create(connection: AsyncConnection) -> Response:
        row = await fleet.create_gateway(connection, body.name, body.vtep, body.shards)
        view = Gateway.model_validate(row)
        return replies.resource(view, 201, f"/v1/gateways/{view.id}")

    return await post.run(create)


@router.get("", response_model=Page[Gateway])
async def list_gateways(
    _: Operator, database: Store, wanted: Wanted, name: Name | None = None
) -> Response:
    """List gateways."""
    async with database.read() as connection:
        rows = await objects.page(connection, gateways, None, {"name": name}, wanted)
    return replies.page([Gateway.model_validate(row) for row in rows], wanted)


@router.get("/{gateway_id}", response_model=Gateway)
async def get_gateway(gateway_id: UUID, _: Operator, database: Store) -> Response:
    """Show a gateway."""
    async with database.read() as connection:
        row = await objects.one(connection, gateways, gateway_id, None)
    return replies.resource(Gateway.model_validate(row))


@router.patch("/{gateway_id}", response_model=Gateway)
async def update_gateway(
    gateway_id: UUID, body: GatewayUpdate, _: Operator, database: Store, match: Match
) -> Response:
    """Rename a gateway."""
    async with database.write() as connection:
        row = await fleet.rename_gateway(connection, gateway_id, match, body.name)
    return replies.resource(Gateway.model_validate(row))


@router.delete("/{gateway_id}", status_code=204)
async def delete_gateway(gateway_id: UUID, _: Operator, database: Store, match: Match) -> Response:
    """Delete a gateway; the others take its share."""
    async with database.write() as connection:
        await fleet.remove_gateway(connection, gateway_id, match)
    return replies.nothing()
