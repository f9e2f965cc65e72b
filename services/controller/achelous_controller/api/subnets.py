"""/v1/subnets."""

from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from achelous_controller.api import replies
from achelous_controller.api.context import Caller, Match, Store, Wanted
from achelous_controller.api.creation import Post
from achelous_controller.api.models.common import Name, Page
from achelous_controller.api.models.vpcs import Subnet, SubnetCreate, SubnetUpdate
from achelous_controller.api.parents import named_vpc
from achelous_controller.domain.errors import Invalid
from achelous_controller.domain.networks import router6_of, router_of
from achelous_controller.store import objects, vpcs
from achelous_controller.store.schema import subnets

router = APIRouter(prefix="/v1/subnets", tags=["subnets"])


@router.post("", status_code=201, response_model=Subnet)
async def create_subnet(body: SubnetCreate, caller: Caller, post: Post) -> Response:
    """Make a subnet of a VPC."""
    try:
        gateway_ip = router_of(body.cidr, body.gateway_ip)
    except ValueError as error:
        raise Invalid.field("gateway_ip", str(body.gateway_ip), str(error)) from None
    try:
        gateway_ip6 = router6_of(body.cidr6, body.gateway_ip6)
    except ValueError as error:
        raise Invalid.field("gateway_ip6", str(body.gateway_ip6), str(error)) from None
    wanted = vpcs.NewSubnet(
        body.name,
        body.cidr,
        gateway_ip,
        body.cidr6,
        gateway_ip6,
        tuple(body.dns_servers),
        body.dhcp_lease_s,
    )

    async def create(connection: AsyncConnection) -> Response:
        vpc = await named_vpc(connection, body.vpc_id, caller)
        row = await vpcs.create_subnet(connection, vpc, wanted)
        view = Subnet.model_validate(row)
        return replies.resource(view, 201, f"/v1/subnets/{view.id}")

    return await post.run(create)


@router.get("", response_model=Page[Subnet])
async def list_subnets(
    caller: Caller,
    database: Store,
    wanted: Wanted,
    name: Name | None = None,
    vpc_id: UUID | None = None,
    project_id: UUID | None = None,
) -> Response:
    """List subnets."""
    filters = {"name": name, "vpc_id": vpc_id, "project_id": project_id}
    async with database.read() as connection:
        rows = await objects.page(connection, subnets, caller.project_id, filters, wanted)
    return replies.page([Subnet.model_validate(row) for row in rows], wanted)


@router.get("/{subnet_id}", response_model=Subnet)
async def get_subnet(subnet_id: UUID, caller: Caller, database: Store) -> Response:
    """Show a subnet."""
    async with database.read() as connection:
        row = await objects.one(connection, subnets, subnet_id, caller.project_id)
    return replies.resource(Subnet.model_validate(row))


@router.patch("/{subnet_id}", response_model=Subnet)
async def update_subnet(
    subnet_id: UUID, body: SubnetUpdate, caller: Caller, database: Store, match: Match
) -> Response:
    """Rename a subnet, or change what DHCP tells its guests: they hear of it as they renew."""
    values = body.model_dump(exclude_none=True)
    async with database.write() as connection:
        row = await vpcs.change_subnet(connection, subnet_id, caller.project_id, match, values)
    return replies.resource(Subnet.model_validate(row))


@router.delete("/{subnet_id}", status_code=204)
async def delete_subnet(subnet_id: UUID, caller: Caller, database: Store, match: Match) -> Response:
    """Delete a subnet without vNICs."""
    async with database.write() as connection:
        await vpcs.remove_subnet(connection, subnet_id, caller.project_id, match)
    return replies.nothing()
