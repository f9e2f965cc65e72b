"""Reading, renaming and withdrawing instances."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    Uuid,
    any_,
    bindparam,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.domain.instances import Instance, Kind, Vnic
from achelous_controller.domain.precondition import Precondition
from achelous_controller.store import objects
from achelous_controller.store.database import Record
from achelous_controller.store.outbox import hosts_changed
from achelous_controller.store.schema import (
    instances,
    vnic_security_groups,
    vnics,
)

_IDS: Final = any_(bindparam("ids", type_=ARRAY(Uuid)))
_VNICS_OF: Final = (
    select(vnics).where(vnics.c.instance_id == _IDS).order_by(vnics.c.instance_id, vnics.c.position)
)
_LINKS: Final = vnic_security_groups.c
_GROUPS_OF: Final = (
    select(
        _LINKS.vnic_id,
        func.array_agg(
            aggregate_order_by(_LINKS.security_group_id, _LINKS.security_group_id)
        ).label("groups"),
    )
    .where(_LINKS.vnic_id == _IDS)
    .group_by(_LINKS.vnic_id)
)


async def get(connection: AsyncConnection, instance_id: UUID, project_id: UUID | None) -> Instance:
    """An instance with its vNICs; raises `NotFound`."""
    row = await objects.one(connection, instances, instance_id, project_id)
    return (await with_vnics(connection, [row]))[0]


async def vnic(connection: AsyncConnection, vnic_id: UUID, project_id: UUID | None) -> Vnic:
    """A vNIC; raises `NotFound`."""
    row = await objects.one(connection, vnics, vnic_id, project_id)
    return (await vnics_of(connection, [row]))[0]


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
    return (await with_vnics(connection, [row]))[0]


async def with_vnics(connection: AsyncConnection, rows: Sequence[Record]) -> list[Instance]:
    """The instances of these rows, in their order."""
    parts: dict[UUID, list[Vnic]] = defaultdict(list)
    found = await connection.execute(_VNICS_OF, {"ids": [row.id for row in rows]})
    for part in await vnics_of(connection, found.all()):
        parts[part.instance_id].append(part)
    return [instance_of(row, tuple(parts[row.id])) for row in rows]


def instance_of(row: Any, parts: tuple[Vnic, ...]) -> Instance:
    """The instance of a row that has the table's columns as attributes, with its vNICs."""
    return Instance(
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
        vnics=parts,
    )


async def vnics_of(connection: AsyncConnection, rows: Sequence[Record]) -> list[Vnic]:
    """The vNICs of these rows, in their order."""
    found = await connection.execute(_GROUPS_OF, {"ids": [row.id for row in rows]})
    of = {row.vnic_id: tuple(row.groups) for row in found}
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
