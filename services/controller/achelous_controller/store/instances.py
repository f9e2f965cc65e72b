"""Reading, renaming and withdrawing instances."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    bindparam,
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
from achelous_controller.store import leapfrog, objects
from achelous_controller.store.database import Record
from achelous_controller.store.leapfrog import Index, Indexed, Keyed, Query
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

_EVERYWHERE: Final = IPv4Network("0.0.0.0/0")

_SUBNET: Final = (
    select(subnets.c.vpc_id, subnets.c.project_id, subnets.c.cidr, vpcs.c.vni)
    .join(vpcs, vpcs.c.id == subnets.c.vpc_id)
    .where(subnets.c.id == bindparam("id"))
)
_VPC: Final = select(vpcs.c.id.label("vpc_id"), vpcs.c.project_id, vpcs.c.vni).where(
    vpcs.c.id == bindparam("id")
)

_ALL: Final = Indexed(instances.c.id)
_BY: Final = {
    name: Keyed(instances.c.id, instances.c[name]) for name in ("project_id", "name", "kind")
}
_OF_VPC: Final = Keyed(vnics.c.instance_id, vnics.c.vpc_id)
_WITH_REASON: Final = Indexed(instances.c.id, instances.c.reason.is_not(None))
_WAITING: Final = Indexed(pending.c.instance_id)
_ALL_VNICS: Final = Indexed(vnics.c.id)
_OF_PROJECT: Final = Keyed(vnics.c.id, vnics.c.project_id)


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
    if vpc_id is not None:
        if await _network(connection, _VPC.params(id=vpc_id), project_id, filters) is None:
            return []
        project_id, filters = None, {**filters, "project_id": None}  # they are all the VPC's
    query = page_query(project_id, filters, vpc_id, wanted)
    return await with_vnics(connection, (await connection.execute(*query)).all())


def page_query(
    project_id: UUID | None,
    filters: Mapping[str, object],
    vpc_id: UUID | None,
    wanted: objects.Page,
) -> Query:
    """The query of `page`."""
    rest = dict(filters)
    host_id = rest.pop("host_id", None)
    if isinstance(host_id, UUID):
        there = on_host(host_id, vpc_id)
        return objects.page_query(instances, project_id, rest, wanted, there), {}

    state = rest.pop("state", None)
    parts: list[tuple[Index, object]] = [
        (_BY[name], value)
        for name, value in [("project_id", project_id), *rest.items()]
        if value is not None
    ]
    if vpc_id is not None:
        parts.append((_OF_VPC, vpc_id))
    match state:
        case None | InstanceState.ACTIVE:  # as nearly all are
            pass
        case InstanceState.ERROR:  # as those are that have a reason, but for a few
            parts.append((_WITH_REASON, None))
        case _:
            parts.append((_WAITING, None))
    in_state = {} if state is None else {"state": state}
    return leapfrog.page_query(instances, parts or [(_ALL, None)], wanted, in_state)


def on_host(host_id: UUID, vpc_id: UUID | None = None) -> ColumnElement[bool]:
    """Whether an instance is on a host, and has a vNIC in a VPC."""
    there = _read_first(vnics.c.host_id == host_id)
    members = select(there.c.instance_id)
    if vpc_id is not None:
        members = members.where(there.c.vpc_id == vpc_id)
    return objects.is_among(instances.c.id, members)


async def vnic_page(
    connection: AsyncConnection,
    project_id: UUID | None,
    filters: Mapping[str, object],
    wanted: objects.Page,
) -> list[Vnic]:
    """A page of vNICs; of a subnet's or VPC's in order of address, see `place_of_address`."""
    rest = dict(filters)
    subnet_id, vpc_id = rest.pop("subnet_id", None), rest.get("vpc_id")
    if subnet_id is None and vpc_id is None:
        query, values = vnic_page_query(project_id, rest, wanted)
    else:
        found = _VPC.params(id=vpc_id) if subnet_id is None else _SUBNET.params(id=subnet_id)
        network = await _network(connection, found, project_id, rest)
        if network is None:
            return []
        rest |= {"project_id": None, "vpc_id": None}  # they are all the network's
        cidr = _EVERYWHERE if subnet_id is None else network.cidr
        query, values = address_page_query(network.vni, cidr, rest, wanted), {}
    return await _with_groups(connection, (await connection.execute(query, values)).all())


def vnic_page_query(
    project_id: UUID | None, filters: Mapping[str, object], wanted: objects.Page
) -> Query:
    """The query of `vnic_page`, but for those of a subnet or VPC."""
    rest = dict(filters)
    few = {name: rest.pop(name, None) for name in ("instance_id", "ip", "ip6")}
    if any(value is not None for value in few.values()):
        found = objects.having(vnics, None, few).with_only_columns(vnics.c.id)
        there = objects.is_among(vnics.c.id, found)
        return objects.page_query(vnics, project_id, rest, wanted, there), {}
    owners = {project_id, rest.get("project_id")} - {None}
    parts: list[tuple[Index, object]] = [(_OF_PROJECT, owner) for owner in owners]
    return leapfrog.page_query(vnics, parts or [(_ALL_VNICS, None)], wanted, {})


async def _network(
    connection: AsyncConnection,
    query: Select[Any],
    project_id: UUID | None,
    filters: Mapping[str, object],
) -> Record | None:
    """The row of a `_VPC` or `_SUBNET`; None if there is none that project and filters allow."""
    found: Record | None = (await connection.execute(query)).one_or_none()
    if found is None:
        return None
    ours = {project_id, filters.get("project_id")} <= {None, found.project_id}
    return found if ours and filters.get("vpc_id") in (None, found.vpc_id) else None


def address_page_query(
    vni: int, network: IPv4Network, filters: Mapping[str, object], wanted: objects.Page
) -> Select[Any]:
    """The query of `vnic_page` of a subnet or VPC: a range of the index of addresses as it stands.

    The addresses are read first, and from the index alone: however few of them the planner believes
    to be there, that is less than to read and sort all the rows. Bounds and order are rows, as only
    that index has.
    """
    begin = network.network_address if wanted.after is None else _address_behind(wanted.after)
    rest = {name: value for name, value in filters.items() if value is not None}
    there: FromClause = vnics
    if "instance_id" in rest:
        there = _read_first(vnics.c.instance_id == rest.pop("instance_id"))
    elif rest:
        there = _read_first(vnics.c.vni == vni, *(vnics.c[name] == rest[name] for name in rest))
    place = tuple_(there.c.vni, there.c.ip)
    first, last = (
        tuple_(vni, literal(address, INET)) for address in (begin, network.broadcast_address)
    )
    equal = (there.c[name] == value for name, value in rest.items())
    found = select(there.c.ip).where(place >= first, place <= last, *equal)
    page = found.order_by(there.c.vni, there.c.ip).limit(wanted.limit)
    return (
        select(vnics)
        .where(vnics.c.vni == vni, objects.is_among(vnics.c.ip, page))
        .order_by(vnics.c.ip)
    )


def _read_first(*conditions: ColumnElement[bool]) -> FromClause:
    """The few vNICs of which that is true, before anything else is asked of them."""
    return select(vnics).where(*conditions).offset(0).subquery()


def place_of_address(vnic: Vnic) -> UUID:
    """Where a list in order of address goes on after this vNIC: that, as 16 bytes like an id's."""
    return UUID(bytes=ip_bytes(vnic.ip))


def _address_behind(place: UUID) -> IPv4Address:
    address = ip_of(place.bytes)
    if not isinstance(address, IPv4Address) or address == _EVERYWHERE.broadcast_address:
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
