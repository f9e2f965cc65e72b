"""Making instances with their vNICs: one or twenty thousand, all or none."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from uuid import UUID

import numpy as np
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.identities import Groups, groups_of
from achelous_controller.domain.ids import new_id
from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.domain.instances import Instance, InstanceSpec, Vnic, VnicSpec
from achelous_controller.domain.pending import Cohort, Member, RoutesAt, cohorts
from achelous_controller.domain.placement import Room
from achelous_controller.domain.quotas import Resource
from achelous_controller.domain.route_entries import entries, keys4, keys6
from achelous_controller.store import (
    allocation,
    capacity,
    identities,
    quotas,
    references,
    rule_limits,
)
from achelous_controller.store.bulk import Columns, Records, append
from achelous_controller.store.outbox import hosts_changed, record_routes, with_revisions
from achelous_controller.store.references import References, Subnet
from achelous_controller.store.schema import instances, vnic_security_groups, vnics
from achelous_shared.routes import RouteOp, Routes


@dataclass(frozen=True, slots=True)
class _Columns:
    """The vNICs of a request, flat, in its order: one value of each list per vNIC."""

    subnets: list[Subnet]
    groups: list[Groups]
    """As asked for; those that ask for none share their VPC's."""
    rooms: list[Room]
    ips: list[int]
    ips6: list[int]
    """0: none."""
    macs: list[int]
    revisions: list[int]
    identities: list[int]


async def create(
    connection: AsyncConnection,
    project_id: UUID | None,
    specs: Sequence[InstanceSpec],
    accepted: Sequence[datetime],
) -> list[Instance]:
    """Make the instances, BUILDING, and record what gateways and hosts have to know of them.

    ``project_id``: the caller's, None for an operator. ``accepted``: when each was asked for.
    Raises `Invalid` and `Conflict`, which name the fields of the specs.
    """
    known = await references.lock(connection, project_id, specs)
    flat = [vnic for spec in specs for vnic in spec.vnics]
    ips = await allocation.addresses(connection, flat, known, allocation.IPV4)
    ips6 = await allocation.addresses(connection, flat, known, allocation.IPV6)
    rooms = await capacity.reserve(connection, specs)
    macs = await allocation.macs(connection, len(flat))
    flat_rooms = [room for spec, room in zip(specs, rooms, strict=True) for _ in spec.vnics]
    nets = [known.subnets[spec.subnet_id] for spec in flat]
    groups = [known.groups_of(spec, net) for spec, net in zip(flat, nets, strict=True)]
    numbers, concerned = await _identities(connection, flat, nets, groups)
    columns = _Columns(nets, groups, flat_rooms, ips, ips6, macs, [0] * len(flat), numbers)
    routes = _routes(known, columns)
    made = _assemble(specs, rooms, columns, accepted)
    new = _vnics_by_host(made)
    counts = {host_id: len(some) for host_id, some in new.items()}
    alone = {host_id: some for host_id, some in new.items() if host_id not in concerned}
    host_revisions = await hosts_changed(connection, concerned | new.keys(), alone, counts)
    await _insert(connection, made, columns, known, host_revisions)
    await _record(connection, known, routes, _pending(made, columns, known, host_revisions))
    for owner, amounts in sorted(_amounts(made).items()):
        await quotas.spend(connection, owner, amounts)
    return made


async def _identities(
    connection: AsyncConnection,
    flat: Sequence[VnicSpec],
    nets: Sequence[Subnet],
    groups: Sequence[Groups],
) -> tuple[list[int], set[UUID]]:
    """The identity of each vNIC, and hosts whose rules have to learn of new ones."""
    # by identity of the tuples, which most vNICs share: few are looked at
    one_of = {
        id(some): (some, spec, net) for some, spec, net in zip(groups, flat, nets, strict=True)
    }
    sets = {key: groups_of(some) for key, (some, _, _) in one_of.items()}
    fields = {sets[key]: f"{spec.field}.security_group_ids" for key, (_, spec, _) in one_of.items()}
    await rule_limits.must_fit(connection, fields)
    by_vpc: dict[UUID, set[Groups]] = defaultdict(set)
    for key, (_, _, net) in one_of.items():
        by_vpc[net.vpc_id].add(sets[key])
    numbers: dict[Groups, int] = {}
    told: set[UUID] = set()
    for vpc_id, wanted in sorted(by_vpc.items()):
        assigned = await identities.assign(connection, vpc_id, wanted)
        numbers |= assigned.numbers
        told |= set(assigned.hosts)
    number_of = {key: numbers[of] for key, of in sets.items()}
    return [number_of[id(some)] for some in groups], told


def _routes(known: References, columns: _Columns) -> dict[UUID, Routes]:
    """The routes of each VPC; their revisions are filled in.

    A vNIC has the revision of the last of its routes.
    """
    found: dict[UUID, Routes] = {}
    by_vpc: dict[UUID, list[int]] = defaultdict(list)
    for index, subnet in enumerate(columns.subnets):
        by_vpc[subnet.vpc_id].append(index)
    for vpc_id, indices in sorted(by_vpc.items()):
        dual = [index for index in indices if columns.ips6[index]]
        keys = (
            keys4([columns.ips[index] for index in indices]),
            keys6(columns.ips6[index] for index in dual),
        )
        indices += dual
        table = entries(
            RouteOp.UPSERT,
            np.concatenate(keys),
            np.array([int(columns.rooms[index].vtep) for index in indices], np.uint32),
            np.array([columns.macs[index] for index in indices], np.uint64),
            np.array([columns.identities[index] for index in indices], np.uint16),
        )
        table = found[vpc_id] = with_revisions(known.vpcs[vpc_id].revision, table)
        for index, revision in zip(indices, table["revision"].tolist(), strict=True):
            columns.revisions[index] = revision
    return found


async def _record(
    connection: AsyncConnection,
    known: References,
    routes: Mapping[UUID, Routes],
    pending: Sequence[Cohort],
) -> None:
    """Record the routes; who waits for them goes with those of the last VPC."""
    last = max(routes)
    for vpc_id, table in routes.items():
        vpc = known.vpcs[vpc_id]
        waiting = pending if vpc_id == last else ()
        await record_routes(connection, vpc_id, vpc.vni, vpc.revision, table, waiting)


def _vnics_by_host(made: Sequence[Instance]) -> dict[UUID, list[UUID]]:
    """New vNICs of each host."""
    found: dict[UUID, list[UUID]] = defaultdict(list)
    for instance in made:
        found[instance.host_id] += [vnic.id for vnic in instance.vnics]
    return found


def _pending(
    made: Sequence[Instance],
    columns: _Columns,
    known: References,
    host_revisions: Mapping[UUID, int],
) -> list[Cohort]:
    revisions = iter(columns.revisions)
    members = (
        Member(
            i.id,
            i.host_id,
            i.accepted_at.timestamp(),
            [v.id for v in i.vnics],
            [RoutesAt(known.vpcs[v.vpc_id].vni, next(revisions)) for v in i.vnics],
        )
        for i in made
    )
    return cohorts(members, InstanceState.BUILDING, host_revisions, made[0].created_at.timestamp())


def _assemble(
    specs: Sequence[InstanceSpec],
    rooms: Sequence[Room],
    columns: _Columns,
    accepted: Sequence[datetime],
) -> list[Instance]:
    now = datetime.now(UTC)
    made = []
    start = 0
    for spec, room, accepted_at in zip(specs, rooms, accepted, strict=True):
        instance_id = new_id()
        parts = tuple(
            _vnic(instance_id, position, columns, start + position)
            for position in range(len(spec.vnics))
        )
        start += len(parts)
        made.append(
            Instance(
                id=instance_id,
                project_id=parts[0].project_id,
                name=spec.name,
                kind=spec.kind,
                host_id=room.host_id,
                state=InstanceState.BUILDING,
                reason=None,
                accepted_at=accepted_at,
                committed_at=now,
                published_at=None,
                gateways_applied_at=None,
                host_applied_at=None,
                active_at=None,
                created_at=now,
                version=1,
                vnics=parts,
            )
        )
    return made


def _vnic(instance_id: UUID, position: int, columns: _Columns, index: int) -> Vnic:
    subnet, ip6 = columns.subnets[index], columns.ips6[index]
    return Vnic(
        id=new_id(),
        project_id=subnet.project_id,
        instance_id=instance_id,
        vpc_id=subnet.vpc_id,
        subnet_id=subnet.id,
        host_id=columns.rooms[index].host_id,
        position=position,
        ip=IPv4Address(columns.ips[index]),
        ip6=IPv6Address(ip6) if ip6 else None,
        mac=columns.macs[index],
        security_group_ids=columns.groups[index],
        version=1,
    )


_INSTANCES: Final = Columns(
    instances,
    ("id", "project_id", "name", "kind", "host_id", "state", "host_revision", "accepted_at",
     "committed_at", "created_at"),
)  # fmt: skip
_VNICS: Final = Columns(
    vnics,
    ("id", "project_id", "instance_id", "vpc_id", "subnet_id", "host_id", "position", "ip", "ip6",
     "mac", "vni", "revision", "identity"),
)  # fmt: skip
_LINKS: Final = Columns(vnic_security_groups, ("vnic_id", "security_group_id"))


async def _insert(
    connection: AsyncConnection,
    made: Sequence[Instance],
    columns: _Columns,
    known: References,
    host_revisions: dict[UUID, int],
) -> None:
    flat = [vnic for instance in made for vnic in instance.vnics]
    instance_rows = [
        (i.id, i.project_id, i.name, i.kind, i.host_id, i.state, host_revisions[i.host_id],
         i.accepted_at, i.committed_at, i.created_at)
        for i in made
    ]  # fmt: skip
    vnic_rows = [
        (v.id, v.project_id, v.instance_id, v.vpc_id, v.subnet_id, v.host_id, v.position, v.ip,
         v.ip6, v.mac, known.vpcs[v.vpc_id].vni, revision, identity)
        for v, revision, identity in zip(flat, columns.revisions, columns.identities, strict=True)
    ]  # fmt: skip
    links = [(vnic.id, group) for vnic in flat for group in vnic.security_group_ids]
    rows: list[tuple[Columns, Records]] = [
        (_INSTANCES, instance_rows),
        (_VNICS, vnic_rows),
        (_LINKS, links),
    ]
    await append(connection, rows)


def _amounts(made: Sequence[Instance]) -> dict[UUID, dict[Resource, int]]:
    count: Counter[UUID] = Counter()
    vnic_count: Counter[UUID] = Counter()
    for instance in made:
        count[instance.project_id] += 1
        vnic_count[instance.project_id] += len(instance.vnics)
    return {
        owner: {Resource.INSTANCES: number, Resource.VNICS: vnic_count[owner]}
        for owner, number in count.items()
    }
