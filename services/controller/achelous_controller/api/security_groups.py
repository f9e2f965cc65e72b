"""/v1/security-groups and their rules."""

from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from achelous_controller.api import replies
from achelous_controller.api.context import Caller, Match, Store, Wanted
from achelous_controller.api.creation import Post
from achelous_controller.api.models.common import Name, Page
from achelous_controller.api.models.security_groups import (
    RuleCreate,
    SecurityGroup,
    SecurityGroupCreate,
    SecurityGroupUpdate,
    SecurityRule,
)
from achelous_controller.api.parents import named_vpc
from achelous_controller.domain.rules import MAX_RULES
from achelous_controller.store import objects, schema, security_groups
from achelous_controller.store.database import Record

router = APIRouter(prefix="/v1/security-groups", tags=["security groups"])


async def _view(connection: AsyncConnection, row: Record) -> SecurityGroup:
    return SecurityGroup.of(row, (await security_groups.rules(connection, [row.id]))[row.id])


@router.post("", status_code=201, response_model=SecurityGroup)
async def create_security_group(body: SecurityGroupCreate, caller: Caller, post: Post) -> Response:
    """Make a group that allows everything out and nothing in."""

    async def create(connection: AsyncConnection) -> Response:
        vpc = await named_vpc(connection, body.vpc_id, caller)
        view = await _view(connection, await security_groups.create(connection, vpc, body.name))
        return replies.resource(view, 201, f"/v1/security-groups/{view.id}")

    return await post.run(create)


@router.get("", response_model=Page[SecurityGroup])
async def list_security_groups(
    caller: Caller,
    database: Store,
    wanted: Wanted,
    name: Name | None = None,
    vpc_id: UUID | None = None,
    project_id: UUID | None = None,
) -> Response:
    """List groups with their rules."""
    filters = {"name": name, "vpc_id": vpc_id, "project_id": project_id}
    async with database.read() as connection:
        rows = await objects.page(
            connection, schema.security_groups, caller.project_id, filters, wanted
        )
        rules = await security_groups.rules(connection, [row.id for row in rows])
    return replies.page([SecurityGroup.of(row, rules[row.id]) for row in rows], wanted)


@router.get("/{group_id}", response_model=SecurityGroup)
async def get_security_group(group_id: UUID, caller: Caller, database: Store) -> Response:
    """Show a group with its rules."""
    async with database.read() as connection:
        row = await objects.one(connection, schema.security_groups, group_id, caller.project_id)
        return replies.resource(await _view(connection, row))


@router.patch("/{group_id}", response_model=SecurityGroup)
async def update_security_group(
    group_id: UUID, body: SecurityGroupUpdate, caller: Caller, database: Store, match: Match
) -> Response:
    """Rename a group."""
    async with database.write() as connection:
        row = await security_groups.rename(
            connection, group_id, caller.project_id, match, body.name
        )
        return replies.resource(await _view(connection, row))


@router.delete("/{group_id}", status_code=204)
async def delete_security_group(
    group_id: UUID, caller: Caller, database: Store, match: Match
) -> Response:
    """Delete a group that no vNIC is in."""
    async with database.write() as connection:
        await security_groups.remove(connection, group_id, caller.project_id, match)
    return replies.nothing()


@router.post("/{group_id}/rules", status_code=201, response_model=SecurityRule)
async def create_rule(group_id: UUID, body: RuleCreate, caller: Caller, post: Post) -> Response:
    """Add a rule; it applies to all vNICs of the group, and to flows that exist already."""

    async def create(connection: AsyncConnection) -> Response:
        row = await security_groups.add_rule(connection, group_id, caller.project_id, body.rule())
        location = f"/v1/security-groups/{group_id}/rules/{row.id}"
        return replies.resource(SecurityRule.of(row), 201, location)

    return await post.run(create)


@router.get("/{group_id}/rules", response_model=Page[SecurityRule])
async def list_rules(group_id: UUID, caller: Caller, database: Store) -> Response:
    """List the rules of a group, all of them."""
    async with database.read() as connection:
        row = await objects.one(connection, schema.security_groups, group_id, caller.project_id)
        view = await _view(connection, row)
    return replies.page(view.rules, objects.Page(None, 2 * MAX_RULES + 1))


@router.get("/{group_id}/rules/{rule_id}", response_model=SecurityRule)
async def get_rule(group_id: UUID, rule_id: UUID, caller: Caller, database: Store) -> Response:
    """Show a rule."""
    async with database.read() as connection:
        await objects.one(connection, schema.security_groups, group_id, caller.project_id)
        row = await security_groups.rule(connection, group_id, rule_id)
    return replies.resource(SecurityRule.of(row))


@router.delete("/{group_id}/rules/{rule_id}", status_code=204)
async def delete_rule(group_id: UUID, rule_id: UUID, caller: Caller, database: Store) -> Response:
    """Delete a rule; flows that only it allowed end."""
    async with database.write() as connection:
        await security_groups.remove_rule(connection, group_id, caller.project_id, rule_id)
    return replies.nothing()
