"""/v1/vnics. They are made and deleted with their instances."""

from uuid import UUID

from fastapi import APIRouter
from starlette.responses import Response

from achelous_controller.api import replies
from achelous_controller.api.context import Caller, Match, Store, Wanted
from achelous_controller.api.models.common import Address, Address6, Page
from achelous_controller.api.models.instances import Vnic, VnicUpdate
from achelous_controller.api.rendering import vnic_view
from achelous_controller.store import instances, listing, security_groups

router = APIRouter(prefix="/v1/vnics", tags=["vnics"])


@router.get("", response_model=Page[Vnic])
async def list_vnics(
    caller: Caller,
    database: Store,
    wanted: Wanted,
    instance_id: UUID | None = None,
    subnet_id: UUID | None = None,
    vpc_id: UUID | None = None,
    project_id: UUID | None = None,
    ip: Address | None = None,
    ip6: Address6 | None = None,
) -> Response:
    """List vNICs; those of a subnet or VPC in order of address."""
    filters = {
        "instance_id": instance_id,
        "subnet_id": subnet_id,
        "vpc_id": vpc_id,
        "project_id": project_id,
        "ip": ip,
        "ip6": ip6,
    }
    async with database.read() as connection:
        found = await listing.vnics_page(connection, caller.project_id, filters, wanted)
    by_address = listing.in_order_of_address(filters)
    last = listing.place_of_address(found[-1]) if by_address and found else None
    return replies.rendered_page([vnic_view(vnic) for vnic in found], wanted, last)


@router.get("/{vnic_id}", response_model=Vnic)
async def get_vnic(vnic_id: UUID, caller: Caller, database: Store) -> Response:
    """Show a vNIC."""
    async with database.read() as connection:
        found = await instances.vnic(connection, vnic_id, caller.project_id)
    return replies.rendered(vnic_view(found))


@router.patch("/{vnic_id}", response_model=Vnic)
async def update_vnic(
    vnic_id: UUID, body: VnicUpdate, caller: Caller, database: Store, match: Match
) -> Response:
    """Put a vNIC into other security groups of its VPC."""
    async with database.write() as connection:
        await security_groups.change_vnic_groups(
            connection, vnic_id, caller.project_id, match, body.security_group_ids
        )
        changed = await instances.vnic(connection, vnic_id, caller.project_id)
    return replies.rendered(vnic_view(changed))
