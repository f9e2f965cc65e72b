"""Reading, renaming and withdrawing instances."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    any_,
    bindparam,
    exists,
    func,
    literal,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import INET, aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.errors import Invalid
from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.domain.instances import Instance, Kind, Vnic
from achelous_controller.domain.precondition import Precondition
from achelous_controller.store import objects
from achelous_controller.store.database import Record
from achelous_controller.store.outbox import hosts_changed
from achelous_controller.store.schema import (
    instances,
    pending,
    subnets,
    vnic_security_groups,
    vnics,
    vpcs,
)
from achelous_shared.routes import ip_bytes, ip_of

_LAST_ADDRESS: Final = IPv4Address("255.255.255.255")

_SUBNET: Final = (
    select(subnets.c.vpc_id, subnets.c.project_id, subnets.c.cidr, vpcs.c.vni)
    .join(vpcs, vpcs.c.id == subnets.c.vpc_id)
    .where(subnets.c.id == bindparam("id"))
)


async def get(connection: AsyncConnection, instance_id: UUID, project_id: UUID | None) -> Instance:
    """An instance with its vNICs; raises `NotFound`."""
    row = await objects.one(connection, instances, instance_id, project_id)
    return (await with_vnics(connection, [row]))[0]


async def page(
    connection: AsyncConnection,
    project_id: UUID | None,
    filters: Mapping[str, object],
    vpc_id: UUID | None,
    wanted: objects.Page,
) -> list[Instance]:
    """A page of instances; ``vpc_id``: those with a vNIC in that VPC."""
    query = page_query(project_id, filters, vpc_id, wanted)
    return await with_vnics(connection, (await connection.execute(query)).all())


def page_query(
    project_id: UUID | None,
    filters: Mapping[str, object],
    vpc_id: UUID | None,
    wanted: objects.Page,
) -> Select[Any]:
    """The query of `page`."""
    conditions: list[ColumnElement[bool]] = []
    if vpc_id is not None:
        member = exists().where(vnics.c.instance_id == instances.c.id, vnics.c.vpc_id == vpc_id)
        if wanted.after is not None:  # else a merge reads the VPC's vNICs from the first one on
            member = member.where(vnics.c.instance_id > wanted.after)
        conditions.append(member)
    match filters.get("state"):
        case None | InstanceState.ACTIVE:
            pass
        case InstanceState.ERROR:  # which has a reason, and those that have one have an index
            conditions.append(instances.c.reason.is_not(None))
        case _:
            conditions.append(_is_pending(wanted.after))
    rest = dict(filters)
    host_id = rest.pop("host_id", None)
    if isinstance(host_id, UUID):
        conditions.append(on_host(host_id))
    return objects.page_query(instances, project_id, rest, wanted, *conditions)


def _is_pending(after: UUID | None) -> ColumnElement[bool]:
    """Whether an instance is not ACTIVE, of those above an id."""
    ids = select(pending.c.instance_id)
    if after is not None:
        ids = ids.where(pending.c.instance_id > after)
    return _is_among(ids)


def on_host(host_id: UUID) -> ColumnElement[bool]:
    """Whether an instance is on a host: an index leads to the host's vNICs."""
    return _is_among(select(vnics.c.instance_id).where(vnics.c.host_id == host_id))


def _is_among(ids: Select[tuple[UUID]]) -> ColumnElement[bool]:
    """Whether an instance's id is one of these, few, which are read first: as an array, whose
    elements are looked up in the primary key. Of a sub-select PostgreSQL has to guess how many
    there are, and while it has not analysed a table that was filled at once it guesses so many
    that it rather walks along all instances until a page is full."""
    return instances.c.id == any_(func.array(ids.scalar_subquery()))


async def vnic_page(
    connection: AsyncConnection,
    project_id: UUID | None,
    filters: Mapping[str, object],
    wanted: objects.Page,
) -> list[Vnic]:
    """A page of vNICs; of a subnet's in order of address, see `place_in_subnet`."""
    rest = dict(filters)
    subnet_id = rest.pop("subnet_id", None)
    if subnet_id is None:
        query = vnic_page_query(project_id, rest, wanted)
    else:
        subnet = (await connection.execute(_SUBNET, {"id": subnet_id})).one_or_none()
        owners = {project_id, rest.pop("project_id", None)} - {None}
        within = {rest.pop("vpc_id", None)} - {None}
        if subnet is None or owners - {subnet.project_id} or within - {subnet.vpc_id}:
            return []
        query = subnet_page_query(subnet.vni, subnet.cidr, rest, wanted)
    return await _with_groups(connection, (await connection.execute(query)).all())


def vnic_page_query(
    project_id: UUID | None, filters: Mapping[str, object], wanted: objects.Page
) -> Select[Any]:
    """The query of `vnic_page`, but for those of a subnet."""
    conditions: list[ColumnElement[bool]] = []
    if filters.get("vpc_id") is not None and filters.get("ip") is not None:
        # addresses of a VPC are indexed by its VNI
        vni = select(vpcs.c.vni).where(vpcs.c.id == filters["vpc_id"]).scalar_subquery()
        conditions.append(vnics.c.vni == vni)
    return objects.page_query(vnics, project_id, filters, wanted, *conditions)


def subnet_page_query(
    vni: int, cidr: IPv4Network, filters: Mapping[str, object], wanted: objects.Page
) -> Select[Any]:
    """The query of `vnic_page` of a subnet: a range of the index of addresses, as it stands there.

    Its bounds are rows: however few vNICs the planner believes to be in a subnet, of (vni, ip) it
    expects many, and neither reads nor sorts them all for one page.
    """
    begin = cidr.network_address if wanted.after is None else _address_behind(wanted.after)
    place = tuple_(vnics.c.vni, vnics.c.ip)
    first, last = (
        tuple_(vni, literal(address, INET)) for address in (begin, cidr.broadcast_address)
    )
    query = objects.having(vnics, None, filters, place >= first, place <= last)
    if filters.get("ip") is not None or filters.get("ip6") is not None:
        query = query.where(vnics.c.vni == vni)
    return query.order_by(vnics.c.vni, vnics.c.ip).limit(wanted.limit)


def place_in_subnet(vnic: Vnic) -> UUID:
    """Where a subnet's list goes on after this vNIC: its address, as 16 bytes in place of an id."""
    return UUID(bytes=ip_bytes(vnic.ip))


def _address_behind(place: UUID) -> IPv4Address:
    address = ip_of(place.bytes)
    if not isinstance(address, IPv4Address) or address == _LAST_ADDRESS:
        raise Invalid.field("cursor", str(place), "take it from `next` of the page before")
    return address + 1


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
    return (await with_vnics(connection, [row]))[0]


async def with_vnics(connection: AsyncConnection, rows: Sequence[Record]) -> list[Instance]:
    """The instances of these rows, in their order."""
    query = (
        select(vnics)
        .where(vnics.c.instance_id.in_([row.id for row in rows]))
        .order_by(vnics.c.instance_id, vnics.c.position)
    )
    parts: dict[UUID, list[Vnic]] = defaultdict(list)
    for part in await _with_groups(connection, (await connection.execute(query)).all()):
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
