"""The VPC that the body of a request names."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.errors import Invalid, NotFound
from achelous_controller.domain.principal import Principal
from achelous_controller.store import objects
from achelous_controller.store.database import Record
from achelous_controller.store.schema import vpcs


async def named_vpc(connection: AsyncConnection, vpc_id: UUID, caller: Principal) -> Record:
    """The VPC, if the caller may see it; raises `Invalid`: the request itself is what is wrong."""
    try:
        return await objects.one(connection, vpcs, vpc_id, caller.project_id)
    except NotFound as error:
        raise Invalid.field("vpc_id", str(vpc_id), error.detail) from None
