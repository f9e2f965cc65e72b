"""/v1/instances, one at a time and by the batch."""

from uuid import UUID

from fastapi import APIRouter
from starlette.responses import Response

from achelous_controller.api import replies
from achelous_controller.api.context import AcceptedAt, Caller, Match, Store, Wanted
from achelous_controller.api.creation import Post
from achelous_controller.api.instance_writes import Writes
from achelous_controller.api.models.common import Name, Page
from achelous_controller.api.models.instances import (
    Batch,
    BatchCreate,
    Instance,
    InstanceCreate,
    InstanceUpdate,
)
from achelous_controller.api.rendering import instance_view
from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.domain.instances import Kind
from achelous_controller.store import instances, listing

router = APIRouter(prefix="/v1", tags=["instances"])


@router.post("/instances", status_code=201, response_model=Instance)
async def create_instance(
    body: InstanceCreate, caller: Caller, post: Post, writes: Writes, accepted_at: AcceptedAt
) -> Response:
    """Make an instance. It is BUILDING, and ACTIVE as soon as it can be reached."""
    return await writes.create(caller, body.spec(), accepted_at, post.claim)


@router.post("/instances:batch", status_code=201, response_model=Batch)
async def create_instances(
    body: BatchCreate, caller: Caller, post: Post, writes: Writes, accepted_at: AcceptedAt
) -> Response:
    """Make up to 20,000 instances, or none of them."""
    specs = [item.spec() for item in body.instances]
    return await writes.create_batch(caller, specs, accepted_at, post.claim)


@router.get("/instances", response_model=Page[Instance])
async def list_instances(
    caller: Caller,
    database: Store,
    wanted: Wanted,
    name: Name | None = None,
    kind: Kind | None = None,
    state: InstanceState | None = None,
    vpc_id: UUID | None = None,
    host_id: UUID | None = None,
    project_id: UUID | None = None,
) -> Response:
    """List instances; by `host_id` for operators only."""
    if host_id is not None:
        caller.must_be_operator()
    filters = {
        "name": name,
        "kind": kind,
        "state": state,
        "vpc_id": vpc_id,
        "host_id": host_id,
        "project_id": project_id,
    }
    async with database.read() as connection:
        found = await listing.instances_page(connection, caller.project_id, filters, wanted)
    views = [instance_view(one, show_host=caller.operator) for one in found]
    return replies.rendered_page(views, wanted)


@router.get("/instances/{instance_id}", response_model=Instance)
async def get_instance(instance_id: UUID, caller: Caller, database: Store) -> Response:
    """Show an instance."""
    async with database.read() as connection:
        found = await instances.get(connection, instance_id, caller.project_id)
    return replies.rendered(instance_view(found, show_host=caller.operator))


@router.patch("/instances/{instance_id}", response_model=Instance)
async def update_instance(
    instance_id: UUID,
    body: InstanceUpdate,
    caller: Caller,
    database: Store,
    writes: Writes,
    match: Match,
    accepted_at: AcceptedAt,
) -> Response:
    """Rename an instance, or move it to another host: there it is BUILDING, then ACTIVE again."""
    if body.host_id is not None:
        return await writes.move(caller, instance_id, match, accepted_at, body.host_id)
    async with database.write() as connection:
        changed = await instances.rename(
            connection, instance_id, caller.project_id, match, body.name
        )
    return replies.rendered(instance_view(changed, show_host=caller.operator))


@router.delete("/instances/{instance_id}", status_code=202, response_model=Instance)
async def delete_instance(
    instance_id: UUID, caller: Caller, writes: Writes, match: Match, accepted_at: AcceptedAt
) -> Response:
    """Delete an instance. It is DELETING until its host and all gateways have let go of it."""
    return await writes.delete(caller, instance_id, match, accepted_at)
