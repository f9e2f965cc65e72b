"""What new instances refer to: subnets, VPCs and security groups, checked under the VPCs' locks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Uuid, any_, bindparam, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.errors import FieldError, Invalid, Refused
from achelous_controller.domain.instances import InstanceSpec, VnicSpec
from achelous_controller.domain.networks import Address, Network
from achelous_controller.domain.rules import DEFAULT_GROUP
from achelous_controller.store.schema import security_groups, subnets, vpcs

_MAX_ERRORS: Final = 100


def _one_of(column: ColumnElement[UUID], name: str) -> ColumnElement[bool]:
    return column == any_(bindparam(name, type_=ARRAY(Uuid)))


_LOCK_VPCS: Final = (
    select(vpcs.c.id, vpcs.c.vni, vpcs.c.revision)
    .where(vpcs.c.id.in_(select(subnets.c.vpc_id).where(_one_of(subnets.c.id, "subnets"))))
    .order_by(vpcs.c.id)
    .with_for_update()
)
_SUBNETS: Final = select(subnets).where(_one_of(subnets.c.id, "subnets"))
_GROUPS: Final = select(
    security_groups.c.id, security_groups.c.vpc_id, security_groups.c.name
).where(
    _one_of(security_groups.c.vpc_id, "vpcs"),
    or_(_one_of(security_groups.c.id, "groups"), security_groups.c.name == DEFAULT_GROUP),
)


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
    default_groups: tuple[UUID, ...]
    """The one that its vNICs are in if they name none."""


@dataclass(frozen=True, slots=True)
class References:
    """All that the specs of one request name."""

    subnets: dict[UUID, Subnet]
    vpcs: dict[UUID, LockedVpc]
    groups: dict[UUID, UUID]
    """Security group -> its VPC."""

    def groups_of(self, vnic: VnicSpec, subnet: Subnet) -> tuple[UUID, ...]:
        """The groups of a vNIC in that subnet, its own."""
        return vnic.security_group_ids or self.vpcs[subnet.vpc_id].default_groups


def refuse(errors: Sequence[FieldError], kind: type[Refused] = Invalid) -> None:
    """Raise what is wrong with the fields of a request, if anything is."""
    if errors:
        more = f" (and {len(errors) - 1} more errors)" if len(errors) > 1 else ""
        raise kind(f"{errors[0].field}: {errors[0].message}{more}", errors[:_MAX_ERRORS])


async def lock(
    connection: AsyncConnection, project_id: UUID | None, specs: Sequence[InstanceSpec]
) -> References:
    """Lock the VPCs of the specs and read what these name; raises `Invalid`.

    ``project_id``: the caller sees this project's objects alone; None sees all.
    """
    vnics = [vnic for spec in specs for vnic in spec.vnics]
    subnet_ids = {vnic.subnet_id for vnic in vnics}
    locked = await _lock_vpcs(connection, subnet_ids)
    found = await _read_subnets(connection, subnet_ids, project_id)
    groups, defaults = await _read_groups(connection, vnics, set(locked))
    references = References(
        found,
        {
            vpc_id: LockedVpc(vpc_id, vni, revision, (defaults[vpc_id],))
            for vpc_id, (vni, revision) in locked.items()
        },
        groups,
    )
    refuse([error for spec in specs for error in _wrong(spec, references)])
    return references


async def _lock_vpcs(
    connection: AsyncConnection, subnet_ids: set[UUID]
) -> dict[UUID, tuple[int, int]]:
    rows = await connection.execute(_LOCK_VPCS, {"subnets": list(subnet_ids)})
    return {row.id: (row.vni, row.revision) for row in rows}


async def _read_subnets(
    connection: AsyncConnection, subnet_ids: set[UUID], project_id: UUID | None
) -> dict[UUID, Subnet]:
    rows = await connection.execute(_SUBNETS, {"subnets": list(subnet_ids)})
    return {
        row.id: Subnet(
            row.id,
            row.project_id,
            row.vpc_id,
            row.name,
            Range(row.cidr, row.gateway_ip, row.next_ip),
            Range(row.cidr6, row.gateway_ip6, row.next_ip6) if row.cidr6 else None,
        )
        for row in rows
        if project_id in (None, row.project_id)
    }


async def _read_groups(
    connection: AsyncConnection, vnics: Sequence[VnicSpec], vpc_ids: set[UUID]
) -> tuple[dict[UUID, UUID], dict[UUID, UUID]]:
    """Security group -> VPC of the groups that are named, and VPC -> default group."""
    named = {group for vnic in vnics for group in vnic.security_group_ids}
    values = {"vpcs": list(vpc_ids), "groups": list(named)}
    rows = (await connection.execute(_GROUPS, values)).all()
    defaults = {row.vpc_id: row.id for row in rows if row.name == DEFAULT_GROUP}
    return {row.id: row.vpc_id for row in rows}, defaults


def _wrong(spec: InstanceSpec, references: References) -> list[FieldError]:
    errors = []
    projects = set()
    for vnic in spec.vnics:
        subnet = references.subnets.get(vnic.subnet_id)
        if subnet is None:
            errors.append(
                FieldError(
                    f"{vnic.field}.subnet_id", str(vnic.subnet_id), "there is no such subnet"
                )
            )
            continue
        projects.add(subnet.project_id)
        for index, group in enumerate(vnic.security_group_ids):
            if references.groups.get(group) != subnet.vpc_id:
                errors.append(
                    FieldError(
                        f"{vnic.field}.security_group_ids[{index}]",
                        str(group),
                        "the subnet's VPC has no such security group",
                    )
                )
    if len(projects) > 1:
        errors.append(
            FieldError(f"{spec.field}vnics", None, "the subnets belong to different projects")
        )
    elif spec.project_id is not None and projects and spec.project_id not in projects:
        errors.append(
            FieldError(
                f"{spec.field}project_id", str(spec.project_id), "the subnets are another project's"
            )
        )
    return errors
