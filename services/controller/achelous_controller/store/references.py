"""What new instances refer to: subnets, VPCs and security groups, checked under the VPCs' locks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Uuid, any_, bindparam, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.errors import FieldError, Invalid, Refused
from achelous_controller.domain.instances import VnicSpec, Wanted
from achelous_controller.domain.layout import Indices, Layout, indices
from achelous_controller.domain.networks import Address, Network
from achelous_controller.domain.rules import DEFAULT_GROUP
from achelous_controller.store.database import driver_of
from achelous_controller.store.schema import subnets, vpcs

_MAX_ERRORS: Final = 100


def _one_of(column: ColumnElement[UUID], name: str) -> ColumnElement[bool]:
    return column == any_(bindparam(name, type_=ARRAY(Uuid)))


_LOCK: Final = (
    select(vpcs.c.vni, vpcs.c.revision, subnets)
    .select_from(vpcs)  # locked first
    .join(subnets, subnets.c.vpc_id == vpcs.c.id)
    .where(_one_of(subnets.c.id, "subnets"))
    .order_by(vpcs.c.id, subnets.c.id)
    # who changes a subnet has its VPC's lock; with its own, too, its row is that of now and not
    # that of when this statement began to wait
    .with_for_update()
)
_LOCK_OWN: Final = _LOCK.where(subnets.c.project_id == bindparam("project", type_=Uuid))

_GROUPS: Final = """
    SELECT g.id, g.vpc_id, g.name,
        (SELECT count(*) FROM security_group_rules AS r
         WHERE r.security_group_id = g.id AND NOT r.egress) AS ingress,
        (SELECT count(*) FROM security_group_rules AS r
         WHERE r.security_group_id = g.id AND r.egress) AS egress,
        EXISTS (SELECT FROM security_group_rules AS r WHERE r.remote_group_id = g.id) AS named
    FROM security_groups AS g
    WHERE g.vpc_id = ANY($1::uuid[]) AND (g.id = ANY($2::uuid[]) OR g.name = $3)
"""


@dataclass(frozen=True, slots=True)
class Range:
    """A subnet's addresses of one family; ``next_ip``: where the search for a free one goes on."""

    network: Network
    router: Address
    next_ip: Address


@dataclass(frozen=True, slots=True)
class Subnet:
    """A subnet as allocation needs it."""

    id: UUID
    project_id: UUID
    vpc_id: UUID
    name: str
    range4: Range
    range6: Range | None


@dataclass(frozen=True, slots=True)
class LockedVpc:
    """A VPC that this transaction has locked at ``revision``."""

    id: UUID
    vni: int
    revision: int


Locked = Mapping[UUID, tuple[Subnet, LockedVpc]]
"""Subnets by id, with their VPCs."""


@dataclass(frozen=True, slots=True)
class Group:
    """A security group: how many rules it has, and whether a rule names it."""

    vpc_id: UUID
    ingress: int
    egress: int
    named: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where vNICs of the same subnet and groups are."""

    subnet: Subnet
    vpc: LockedVpc
    groups: tuple[UUID, ...]
    """As asked for; those that ask for none are in their VPC's own."""


@dataclass(frozen=True, slots=True)
class References:
    """What the vNICs of a request name: their places, and which each spec of the layout has."""

    places: list[Place]
    of: Indices
    groups: dict[UUID, Group]


def refuse(errors: Sequence[FieldError], kind: type[Refused] = Invalid) -> None:
    """Raise what is wrong with the fields of a request, if anything is."""
    if errors:
        more = f" (and {len(errors) - 1} more errors)" if len(errors) > 1 else ""
        raise kind(f"{errors[0].field}: {errors[0].message}{more}", errors[:_MAX_ERRORS])


async def lock(connection: AsyncConnection, project_id: UUID | None, layout: Layout) -> References:
    """Lock the VPCs and subnets of the vNICs and read what these name; raises `Invalid`.

    ``project_id``: the caller sees this project's objects alone; None sees all.
    """
    locked = await _lock(connection, {spec.subnet_id for spec in layout.specs}, project_id)
    vpc_ids = list({subnet.vpc_id for subnet, _ in locked.values()})
    named = list({group for spec in layout.specs for group in spec.security_group_ids})
    driver = await driver_of(connection)
    rows = await driver.fetch(_GROUPS, vpc_ids, named, DEFAULT_GROUP)
    defaults = {row["vpc_id"]: (row["id"],) for row in rows if row["name"] == DEFAULT_GROUP}
    groups = {
        row["id"]: Group(row["vpc_id"], row["ingress"], row["egress"], row["named"]) for row in rows
    }
    _check(layout, locked, groups)
    found: dict[tuple[UUID, tuple[UUID, ...]], int] = {}
    of = indices(
        found.setdefault((spec.subnet_id, spec.security_group_ids), len(found))
        for spec in layout.specs
    )
    places = [
        Place(*locked[subnet_id], wanted or defaults[locked[subnet_id][0].vpc_id])
        for subnet_id, wanted in found
    ]
    return References(places, of, groups)


async def _lock(
    connection: AsyncConnection, subnet_ids: set[UUID], project_id: UUID | None
) -> Locked:
    query = _LOCK if project_id is None else _LOCK_OWN
    values = {"subnets": list(subnet_ids), "project": project_id}
    return {
        row.id: (
            Subnet(
                row.id,
                row.project_id,
                row.vpc_id,
                row.name,
                Range(row.cidr, row.gateway_ip, row.next_ip),
                Range(row.cidr6, row.gateway_ip6, row.next_ip6) if row.cidr6 else None,
            ),
            LockedVpc(row.vpc_id, row.vni, row.revision),
        )
        for row in await connection.execute(query, values)
    }


def _check(layout: Layout, locked: Locked, groups: Mapping[UUID, Group]) -> None:
    """Raises `Invalid` with what is wrong, in the order of the request."""
    specs = layout.wanted.specs
    owners: dict[int, UUID | None] = {}
    for vnics in layout.lists:
        owners[id(vnics)] = _owner(vnics, locked, groups)
    suspects = [
        index
        for index, spec in enumerate(specs)
        if (owner := owners[id(spec.vnics)]) is None or spec.project_id not in (None, owner)
    ]
    refuse([e for index in suspects for e in _wrong(layout.wanted, index, locked, groups)])


def _owner(vnics: Sequence[VnicSpec], locked: Locked, groups: Mapping[UUID, Group]) -> UUID | None:
    """Whose project the vNICs are in; None if something is wrong with them."""
    projects = set()
    for vnic in vnics:
        if vnic.subnet_id not in locked:
            return None
        subnet, vpc = locked[vnic.subnet_id]
        if any(not _is_in(vpc, group, groups) for group in vnic.security_group_ids):
            return None
        projects.add(subnet.project_id)
    return projects.pop() if len(projects) == 1 else None


def _is_in(vpc: LockedVpc, group: UUID, groups: Mapping[UUID, Group]) -> bool:
    return group in groups and groups[group].vpc_id == vpc.id


def _wrong(
    wanted: Wanted, index: int, locked: Locked, groups: Mapping[UUID, Group]
) -> list[FieldError]:
    errors = []
    projects = set()
    spec = wanted.specs[index]
    for position, vnic in enumerate(spec.vnics):
        field = wanted.field(index, f"vnics[{position}]")
        if vnic.subnet_id not in locked:
            message = "there is no such subnet"
            errors.append(FieldError(f"{field}.subnet_id", str(vnic.subnet_id), message))
            continue
        subnet, vpc = locked[vnic.subnet_id]
        projects.add(subnet.project_id)
        message = "the subnet's VPC has no such security group"
        errors += [
            FieldError(f"{field}.security_group_ids[{number}]", str(group), message)
            for number, group in enumerate(vnic.security_group_ids)
            if not _is_in(vpc, group, groups)
        ]
    if len(projects) > 1:
        message = "the subnets belong to different projects"
        errors.append(FieldError(wanted.field(index, "vnics"), None, message))
    elif spec.project_id is not None and projects and spec.project_id not in projects:
        message = "the subnets are another project's"
        field = wanted.field(index, "project_id")
        errors.append(FieldError(field, str(spec.project_id), message))
    return errors
