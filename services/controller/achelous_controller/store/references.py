"""What new instances refer to: subnets, VPCs and security groups, checked under the VPCs' locks."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from uuid import UUID

from achelous_controller.domain.errors import FieldError, Invalid, Refused
from achelous_controller.domain.instances import VnicSpec, Wanted
from achelous_controller.domain.layout import Indices, Layout, indices
from achelous_controller.domain.networks import Address, Network
from achelous_controller.domain.rules import DEFAULT_GROUP
from achelous_controller.store.bulk import Found, Part
from achelous_controller.store.database import Prepared, array

_MAX_ERRORS: Final = 100


_LOCK: Final = """
    SELECT FROM vpcs WHERE id = ANY(ARRAY(
        SELECT vpc_id FROM subnets
        WHERE id = ANY($1::uuid[]) AND ($2::uuid IS NULL OR project_id = $2)
    )) ORDER BY id FOR UPDATE
"""
_SUBNETS: Final = """
    SELECT ROW(s.id, s.project_id, s.vpc_id, s.name, s.cidr, s.gateway_ip, s.next_ip,
        s.cidr6, s.gateway_ip6, s.next_ip6, v.vni, v.revision)
    FROM subnets AS s JOIN vpcs AS v ON v.id = s.vpc_id
    WHERE s.id = ANY({}::uuid[])
"""
_GROUPS: Final = """
    SELECT ROW(g.id, g.vpc_id, g.name,
        (SELECT count(*) FROM security_group_rules AS r
         WHERE r.security_group_id = g.id AND NOT r.egress),
        (SELECT count(*) FROM security_group_rules AS r
         WHERE r.security_group_id = g.id AND r.egress),
        EXISTS (SELECT FROM security_group_rules AS r WHERE r.remote_group_id = g.id))
    FROM security_groups AS g
    WHERE g.vpc_id IN (SELECT vpc_id FROM subnets WHERE id = ANY({}::uuid[]))
        AND (g.id = ANY({}::uuid[]) OR g.name = {})
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


class _SubnetRow(NamedTuple):
    """A row of `_SUBNETS`."""

    id: UUID
    project_id: UUID
    vpc_id: UUID
    name: str
    cidr: Network
    gateway_ip: Address
    next_ip: Address
    cidr6: Network | None
    gateway_ip6: Address | None
    next_ip6: Address | None
    vni: int
    revision: int


class _GroupRow(NamedTuple):
    """A row of `_GROUPS`."""

    id: UUID
    vpc_id: UUID
    name: str
    ingress: int
    egress: int
    named: bool


def locking(project_id: UUID | None, subnet_ids: Collection[UUID]) -> Prepared:
    """Locks the VPCs of these subnets, in order of id, as a statement of `Database.write`.

    ``project_id``: only the VPCs of this project; None: any. Who changes anything in a VPC has its
    lock, so what is read of it by the next statement stays.
    """
    owner = "NULL" if project_id is None else f"'{project_id}'"
    return Prepared("lock_vpcs", _LOCK, (array(subnet_ids), owner))


def reading(layout: Layout) -> list[Part]:
    """Reads what the vNICs name; the VPCs are locked."""
    subnets = list({spec.subnet_id for spec in layout.specs})
    groups = list({group for spec in layout.specs for group in spec.security_group_ids})
    return [
        Part("subnets", _SUBNETS, (subnets,)),
        Part("groups", _GROUPS, (subnets, groups, DEFAULT_GROUP)),
    ]


def resolved(layout: Layout, project_id: UUID | None, found: Found) -> References:
    """What the vNICs name, of what `reading` has found; raises `Invalid`.

    ``project_id``: the caller sees this project's objects alone; None sees all.
    """
    locked = _locked(project_id, [_SubnetRow(*row) for row in found["subnets"]])
    rows = [_GroupRow(*row) for row in found["groups"]]
    defaults = {row.vpc_id: (row.id,) for row in rows if row.name == DEFAULT_GROUP}
    groups = {row.id: Group(row.vpc_id, row.ingress, row.egress, row.named) for row in rows}
    _check(layout, locked, groups)
    numbers: dict[tuple[UUID, tuple[UUID, ...]], int] = {}
    of = indices(
        numbers.setdefault((spec.subnet_id, spec.security_group_ids), len(numbers))
        for spec in layout.specs
    )
    places = [
        Place(*locked[subnet_id], wanted or defaults[locked[subnet_id][0].vpc_id])
        for subnet_id, wanted in numbers
    ]
    return References(places, of, groups)


def _locked(project_id: UUID | None, rows: Sequence[_SubnetRow]) -> Locked:
    return {
        row.id: (
            Subnet(
                row.id,
                row.project_id,
                row.vpc_id,
                row.name,
                Range(row.cidr, row.gateway_ip, row.next_ip),
                Range(row.cidr6, row.gateway_ip6, row.next_ip6)
                if row.cidr6 and row.gateway_ip6 and row.next_ip6
                else None,
            ),
            LockedVpc(row.vpc_id, row.vni, row.revision),
        )
        for row in rows
        if project_id in (None, row.project_id)
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
