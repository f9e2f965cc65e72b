"""Reading, renaming and withdrawing instances."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import exists, func, select, update
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.instance_state import InstanceState, may_become
from achelous_controller.domain.instances import Instance, Kind, Vnic
from achelous_controller.domain.precondition import Precondition
from achelous_controller.domain.quotas import Resource
from achelous_controller.domain.route_entries import entries, keys4, keys6
from achelous_controller.store import capacity, objects, quotas
from achelous_controller.store.database import Record
from achelous_controller.store.outbox import hosts_changed, routes_changed
from achelous_controller.store.schema import (
    hosts,
    instances,
    vnic_security_groups,
    vnics,
    vpcs,
)
from achelous_shared.routes import RouteOp


async def get(connection: AsyncConnection, instance_id: UUID, project_id: UUID | None) -> Instance:
    """An instance with its vNICs; raises `NotFound`."""
    row = await objects.one(connection, instances, instance_id, project_id)
    return (await _with_vnics(connection, [row]))[0]


async def page(
    connection: AsyncConnection,
    project_id: UUID | None,
    filters: Mapping[str, object],
    vpc_id: UUID | None,
    wanted: objects.Page,
) -> list[Instance]:
    """A page of instances; ``vpc_id``: those with a vNIC in that VPC."""
    conditions = []
    if vpc_id is not None:
        conditions.append(
            exists().where(vnics.c.instance_id == instances.c.id, vnics.c.vpc_id == vpc_id)
        )
    rows = await objects.page(connection, instances, project_id, filters, wanted, *conditions)
    return await _with_vnics(connection, rows)


async def vnic_page(
    connection: AsyncConnection,
    project_id: UUID | None,
    filters: Mapping[str, object],
    wanted: objects.Page,
) -> list[Vnic]:
    """A page of vNICs."""
    rows = await objects.page(connection, vnics, project_id, filters, wanted)
    return await _with_groups(connection, rows)


async def vnic(connection: AsyncConnection, vnic_id: UUID, project_id: UUID | None) -> Vnic:
    """A vNIC; raises `NotFound`."""
    row = await objects.one(connection, vnics, vnic_id, project_id)
    return (await _with_groups(connection, [row]))[0]


async def rename(
    connection: AsyncConnection,
    instance_id: UUID,
    project_id: UUID | None,
    match: Precondition,
    name: str | None,
) -> Instance:
    """Give an instance another name, which its guest hears of by DHCP."""
    row = await objects.locked(connection, instances, instance_id, project_id, match)
    if name not in (None, row.name):
        await hosts_changed(connection, [row.host_id])
    row = await objects.change(connection, instances, instance_id, {"name": name or row.name})
    return (await _with_vnics(connection, [row]))[0]


async def withdraw(
    connection: AsyncConnection,
    instance_id: UUID,
    project_id: UUID | None,
    match: Precondition,
    accepted_at: datetime,
) -> Instance:
    """Take an instance's routes and ports away; its rows go when that is done everywhere.

    Once DELETING it stays so, and withdrawing it again changes nothing.
    """
    locked = await _lock_vpcs(connection, instance_id)
    row = await objects.locked(connection, instances, instance_id, project_id, match)
    if row.state not in may_become(InstanceState.DELETING):
        return (await _with_vnics(connection, [row]))[0]
    held = (await connection.execute(_held(instance_id))).all()
    for vpc in locked:
        await _withdraw_routes(connection, vpc, [v for v in held if v.vpc_id == vpc.id])
    revisions = await hosts_changed(connection, [row.host_id])
    row = await objects.change(
        connection,
        instances,
        instance_id,
        {
            "state": InstanceState.DELETING,
            "reason": None,
            "host_revision": revisions[row.host_id],
            "accepted_at": accepted_at,
            "committed_at": datetime.now(UTC),
            "published_at": None,
            "gateways_applied_at": None,
            "host_applied_at": None,
            "active_at": None,
        },
    )
    await capacity.release(connection, Counter({row.host_id: len(held)}))
    await quotas.give_back(
        connection, row.project_id, {Resource.INSTANCES: 1, Resource.VNICS: len(held)}
    )
    return (await _with_vnics(connection, [row]))[0]


async def _lock_vpcs(connection: AsyncConnection, instance_id: UUID) -> Sequence[Record]:
    named = select(vnics.c.vpc_id).where(vnics.c.instance_id == instance_id)
    query = select(vpcs.c.id, vpcs.c.vni, vpcs.c.revision).where(vpcs.c.id.in_(named))
    return (await connection.execute(query.order_by(vpcs.c.id).with_for_update())).all()


def _held(instance_id: UUID) -> Any:
    return (
        select(vnics.c.id, vnics.c.vpc_id, vnics.c.ip, vnics.c.ip6, vnics.c.mac, hosts.c.vtep)
        .join(hosts, hosts.c.id == vnics.c.host_id)
        .where(vnics.c.instance_id == instance_id)
    )


async def _withdraw_routes(
    connection: AsyncConnection, vpc: Record, held: Sequence[Record]
) -> None:
    dual = [row for row in held if row.ip6 is not None]
    keys = keys4([int(row.ip) for row in held]), keys6(int(row.ip6) for row in dual)
    routes = [*held, *dual]
    table = entries(
        RouteOp.DELETE,
        np.concatenate(keys),
        np.array([int(row.vtep) for row in routes], np.uint32),
        np.array([row.mac for row in routes], np.uint64),
    )
    table = await routes_changed(connection, vpc.id, vpc.vni, vpc.revision, table)
    revision = int(table["revision"][-1])  # an instance's vNICs fit one delta
    await connection.execute(
        update(vnics)
        .where(vnics.c.id.in_([row.id for row in held]))
        .values(withdrawn=True, revision=revision, version=vnics.c.version + 1)
    )


async def _with_vnics(connection: AsyncConnection, rows: Sequence[Record]) -> list[Instance]:
    query = (
        select(vnics)
        .where(vnics.c.instance_id.in_([row.id for row in rows]))
        .order_by(vnics.c.instance_id, vnics.c.position)
    )
    parts: dict[UUID, list[Vnic]] = defaultdict(list)
    for part in await _with_groups(connection, (await connection.execute(query)).all()):
        parts[part.instance_id].append(part)
    return [
        Instance(
            id=row.id,
            project_id=row.project_id,
            name=row.name,
            kind=Kind(row.kind),
            host_id=row.host_id,
            state=InstanceState(row.state),
            reason=row.reason,
            accepted_at=row.accepted_at,
            committed_at=row.committed_at,
            published_at=row.published_at,
            gateways_applied_at=row.gateways_applied_at,
            host_applied_at=row.host_applied_at,
            active_at=row.active_at,
            created_at=row.created_at,
            version=row.version,
            vnics=tuple(parts[row.id]),
        )
        for row in rows
    ]


async def _with_groups(connection: AsyncConnection, rows: Sequence[Record]) -> list[Vnic]:
    links = vnic_security_groups
    groups = func.array_agg(
        aggregate_order_by(links.c.security_group_id, links.c.security_group_id)
    )
    query = (
        select(links.c.vnic_id, groups.label("groups"))
        .where(links.c.vnic_id.in_([row.id for row in rows]))
        .group_by(links.c.vnic_id)
    )
    of = {row.vnic_id: tuple(row.groups) for row in await connection.execute(query)}
    return [
        Vnic(
            id=row.id,
            project_id=row.project_id,
            instance_id=row.instance_id,
            vpc_id=row.vpc_id,
            subnet_id=row.subnet_id,
            host_id=row.host_id,
            position=row.position,
            ip=row.ip,
            ip6=row.ip6,
            mac=row.mac,
            security_group_ids=of.get(row.id, ()),
            version=row.version,
        )
        for row in rows
    ]
