"""Pages of instances and vNICs by any filters, none of which reads much more than its page.

Statements are put together once for each way to combine filters; what they are executed with is the
filters themselves.
"""

from collections.abc import Collection, Mapping
from functools import cache
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Integer,
    Select,
    Uuid,
    bindparam,
    literal,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import CIDR, INET
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.errors import Invalid
from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.domain.instances import Instance, Vnic
from achelous_controller.store import leapfrog, objects
from achelous_controller.store.instances import vnics_of, with_vnics
from achelous_controller.store.leapfrog import AFTER, LIMIT, Index, Indexed, Keyed
from achelous_controller.store.objects import equal
from achelous_controller.store.schema import instances, pending, subnets, vnics, vpcs
from achelous_shared.routes import ip_bytes, ip_of

Query: TypeAlias = tuple[Select[Any], dict[str, object]]
"""A statement, and what to execute it with."""

_BELOW_ALL: Final = UUID(int=0)
_LAST_ADDRESS: Final = IPv4Address("255.255.255.255")

_INSTANCES: Final = Indexed(instances.c.id)
_BY: Final = {
    "project_id": Keyed(instances.c.id, instances.c.project_id),
    "name": Keyed(instances.c.id, instances.c.name),
    "kind": Keyed(instances.c.id, instances.c.kind),
    "vpc_id": Keyed(vnics.c.instance_id, vnics.c.vpc_id),
}
_WITH_REASON: Final = Indexed(instances.c.id, instances.c.reason.is_not(None))
_WAITING: Final = Indexed(pending.c.instance_id)
_VNICS: Final = Indexed(vnics.c.id)
_VNICS_OF_PROJECT: Final = Keyed(vnics.c.id, vnics.c.project_id)

_SUBNET: Final = (
    select(subnets.c.project_id, subnets.c.vpc_id, vpcs.c.vni, subnets.c.cidr)
    .join(vpcs, vpcs.c.id == subnets.c.vpc_id)
    .where(subnets.c.id == bindparam("id"))
)
_VPC: Final = select(
    vpcs.c.project_id,
    vpcs.c.id.label("vpc_id"),
    vpcs.c.vni,
    literal_column("cidr '0.0.0.0/0'", CIDR).label("cidr"),
).where(vpcs.c.id == bindparam("id"))


async def instances_page(
    connection: AsyncConnection,
    project_id: UUID | None,
    filters: Mapping[str, object],
    wanted: objects.Page,
) -> list[Instance]:
    """Instances of a project or of all, in order of id.

    ``filters``: ``project_id``, ``name``, ``kind``, ``state``, ``host_id``, and ``vpc_id`` of any
    of its vNICs; None: whatever it is.
    """
    asked = _asked(project_id, filters)
    if asked is None:
        return []
    if "vpc_id" in asked:
        if await _network(connection, asked) is None:
            return []
        asked.pop("project_id", None)  # they are all the VPC's
    found = await connection.execute(*instances_query(asked, wanted))
    return await with_vnics(connection, found.all())


def instances_query(filters: Mapping[str, object], wanted: objects.Page) -> Query:
    """The query of `instances_page`."""
    return _instances(frozenset(filters), filters.get("state")), _values(filters, wanted)


@cache
def _instances(named: frozenset[str], state: object) -> Select[Any]:
    if "host_id" in named:
        there = _on_host(bindparam("host_id"), named & {"vpc_id"})
        query = select(instances).where(there, *equal(instances, named - {"host_id", "vpc_id"}))
        return _in_order(query, instances.c.id)
    indexes: list[Index] = [index for name, index in _BY.items() if name in named]
    match state:
        case None | InstanceState.ACTIVE:  # as nearly all are
            pass
        case InstanceState.ERROR:  # as those are that have a reason, but for a few
            indexes.append(_WITH_REASON)
        case _:
            indexes.append(_WAITING)
    return leapfrog.page_query(instances, tuple(indexes or [_INSTANCES]), named & {"state"})


def on_host(host_id: UUID) -> ColumnElement[bool]:
    """Whether an instance is on a host."""
    return _on_host(literal(host_id, Uuid), ())


def _on_host(host_id: ColumnElement[UUID], more: Collection[str]) -> ColumnElement[bool]:
    there = _read_first(vnics.c.host_id == host_id)  # some thousands at most
    found = select(there.c.instance_id).where(*equal(there, more))
    return objects.is_among(instances.c.id, found)


async def vnics_page(
    connection: AsyncConnection,
    project_id: UUID | None,
    filters: Mapping[str, object],
    wanted: objects.Page,
) -> list[Vnic]:
    """vNICs of a project or of all, in order of id; of a subnet or VPC in order of address, see
    `place_of_address`.

    ``filters``: ``project_id``, ``instance_id``, ``ip``, ``ip6``, ``subnet_id``, ``vpc_id``; None:
    whatever it is.
    """
    asked = _asked(project_id, filters)
    if asked is None:
        return []
    if in_order_of_address(asked):
        network = await _network(connection, asked)
        if network is None:
            return []
        for name in ("project_id", "subnet_id", "vpc_id"):  # which is all the network's
            asked.pop(name, None)
        query = addresses_query(network, asked, wanted)
    else:
        query = vnics_query(asked, wanted)
    return await vnics_of(connection, (await connection.execute(*query)).all())


def vnics_query(filters: Mapping[str, object], wanted: objects.Page) -> Query:
    """The query of `vnics_page`, but for those of a subnet or VPC."""
    return _vnics(frozenset(filters)), _values(filters, wanted)


@cache
def _vnics(named: frozenset[str]) -> Select[Any]:
    few = named - {"project_id"}
    if few:
        there = _read_first(*equal(vnics, few))
        here = objects.is_among(vnics.c.id, select(there.c.id))
        query = select(vnics).where(here, *equal(vnics, named - few))
        return _in_order(query, vnics.c.id)
    return leapfrog.page_query(vnics, (_VNICS_OF_PROJECT if named else _VNICS,), ())


def in_order_of_address(filters: Mapping[str, object]) -> bool:
    """Whether a page of vNICs by these filters is."""
    return any(filters.get(name) is not None for name in ("subnet_id", "vpc_id"))


def place_of_address(vnic: Vnic) -> UUID:
    """Where a list in order of address goes on after this vNIC: that, as 16 bytes like an id's."""
    return UUID(bytes=ip_bytes(vnic.ip))


class Network(NamedTuple):
    """A range of the addresses of a VPC."""

    vni: int
    cidr: IPv4Network


def addresses_query(network: Network, filters: Mapping[str, object], wanted: objects.Page) -> Query:
    """The query of `vnics_page` of a subnet or VPC: a range of the index of addresses."""
    cidr = network.cidr
    first = cidr.network_address if wanted.after is None else _address_behind(wanted.after)
    values = {"vni": network.vni, "first": first, "last": cidr.broadcast_address}
    return _addresses(frozenset(filters)), _values(filters, wanted) | values


@cache
def _addresses(named: frozenset[str]) -> Select[Any]:
    # bounds and order are rows, as of no other index, and the VNI a sub-select: so the planner
    # takes the range for a large part of the table, however few vNICs it knows of
    vni = select(bindparam("vni", type_=Integer)).scalar_subquery()
    there: FromClause = vnics
    if "instance_id" in named:
        there = _read_first(*equal(vnics, {"instance_id"}))
    elif named:
        there = _read_first(vnics.c.vni == vni, *equal(vnics, named))
    place = tuple_(there.c.vni, there.c.ip)
    first, last = (tuple_(vni, bindparam(name, type_=INET)) for name in ("first", "last"))
    query = select(there).where(place >= first, place <= last, *equal(there, named))
    return query.order_by(there.c.vni, there.c.ip).limit(LIMIT)


def _address_behind(place: UUID) -> IPv4Address:
    address = ip_of(place.bytes)
    if not isinstance(address, IPv4Address) or address == _LAST_ADDRESS:
        raise Invalid.field("cursor", str(place), "take it from `next` of the page before")
    return address + 1


def _asked(project_id: UUID | None, filters: Mapping[str, object]) -> dict[str, object] | None:
    """The filters that say something, the caller's project among them; None: nothing can match."""
    asked = {name: value for name, value in filters.items() if value is not None}
    if project_id is not None and asked.setdefault("project_id", project_id) != project_id:
        return None
    return asked


async def _network(connection: AsyncConnection, asked: Mapping[str, object]) -> Network | None:
    """The subnet or VPC that is asked for; None if there is none in that project, or VPC."""
    if "subnet_id" in asked:
        found = await connection.execute(_SUBNET, {"id": asked["subnet_id"]})
    else:
        found = await connection.execute(_VPC, {"id": asked["vpc_id"]})
    row = found.one_or_none()
    if row is None or asked.get("project_id") not in (None, row.project_id):
        return None
    return Network(row.vni, row.cidr) if asked.get("vpc_id") in (None, row.vpc_id) else None


def _values(filters: Mapping[str, object], wanted: objects.Page) -> dict[str, object]:
    return {**filters, "after": wanted.after or _BELOW_ALL, "limit": wanted.limit}


def _read_first(*conditions: ColumnElement[bool]) -> FromClause:
    """The few vNICs of which that is true, before anything else is asked of them."""
    return select(vnics).where(*conditions).offset(0).subquery()


def _in_order(query: Select[Any], row_id: ColumnElement[UUID]) -> Select[Any]:
    return query.where(row_id > AFTER).order_by(row_id).limit(LIMIT)
