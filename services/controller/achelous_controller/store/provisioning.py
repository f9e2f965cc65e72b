"""Making instances with their vNICs: one or twenty thousand, all or none.

What is said of many alike is looked at once (`domain.layout`), and the rest is columns: no object
per instance is made between the request and COPY.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

import numpy as np
import numpy.typing as npt
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.identities import NONE, groups_of
from achelous_controller.domain.ids import ID_BYTES, Ids, new_ids, packed
from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.domain.instances import Wanted
from achelous_controller.domain.layout import Indices, Layout, distinct, laid_out, spread
from achelous_controller.domain.pending import Cohort, latest
from achelous_controller.domain.placement import NoRoom, Room
from achelous_controller.domain.quotas import Resource
from achelous_controller.domain.route_entries import entries
from achelous_controller.store import (
    allocation,
    bulk,
    capacity,
    idempotency,
    identities,
    outbox,
    quotas,
    references,
    rule_limits,
)
from achelous_controller.store.allocation import Addresses
from achelous_controller.store.bulk import Found, Part, Rows
from achelous_controller.store.database import INET_HEADS, First, driver_of
from achelous_controller.store.idempotency import Claim
from achelous_controller.store.outbox import VpcRoutes, with_revisions
from achelous_controller.store.references import Place, References
from achelous_controller.store.schema import instances, pending, vnic_security_groups, vnics
from achelous_shared.routes import RouteOp

Integers = npt.NDArray[np.signedinteger[Any] | np.unsignedinteger[Any]]

_NO_HOSTS: Final = "no_hosts"
"""The savepoint from before hosts were locked."""

_IPV4_AT: Final = 12
"""Where an IPv4 address begins in the 16 bytes of a mapped one."""


@dataclass(frozen=True, slots=True)
class Made:
    """n new instances and their m vNICs, BUILDING, in the order of the request.

    ``room``, shape (n,): the index of each instance's host in ``rooms``; ``place``, shape (m,):
    that of each vNIC's place in ``places``. ``macs``, shape (m,): 48 bits. ``identity``, shape
    (m,). ``concerned``: hosts whose rules have to learn of new identities.
    """

    layout: Layout
    places: list[Place]
    place: Indices
    rooms: list[Room]
    room: Indices
    ids: Ids
    vnic_ids: Ids
    ip: Addresses
    ip6: Addresses
    macs: npt.NDArray[np.uint64]
    identity: Integers
    concerned: set[UUID]
    created_at: datetime

    @property
    def host(self) -> Indices:
        """The index of each vNIC's host, shape (m,)."""
        return self.room[self.layout.owner]


@dataclass(frozen=True, slots=True)
class Seen:
    """What instances are asked for, and what was read for them."""

    layout: Layout
    found: Found


def locking(project_id: UUID | None, wanted: Wanted) -> list[First]:
    """Locks the VPCs of the instances, as statements of `Database.write`: then `look`.

    ``project_id``: the caller's, None for an operator.
    """
    vpcs = references.locking(project_id, _subnets(wanted))
    savepoint = [f"SAVEPOINT {_NO_HOSTS}"] if _may_let_go(wanted) else []
    return [allocation.WALKING, *savepoint, vpcs]


async def look(
    connection: AsyncConnection,
    wanted: Wanted,
    claims: Sequence[Claim] = (),
    *,
    waiting: bool = False,
) -> Seen:
    """Read all that making the instances needs to know, and lock hosts for them.

    ``claims``: of the requests, whose earlier replies are read with it. ``waiting``: see
    `capacity.reading`.
    """
    layout = laid_out(wanted)
    parts = [*references.reading(layout), *allocation.reading(layout)]
    if claims:
        parts.append(idempotency.reading(claims))
    parts += capacity.reading(layout, waiting=waiting)
    return Seen(layout, await bulk.read(connection, parts))


async def make(
    connection: AsyncConnection,
    project_id: UUID | None,
    seen: Seen,
    macs: npt.NDArray[np.uint64],
) -> Made:
    """Choose addresses and hosts for the instances, which `write` then writes.

    ``macs``: one for each vNIC. Raises `Invalid` and `Conflict`, which name the fields of the
    request.
    """
    try:
        return await _make(connection, project_id, seen, macs)
    except NoRoom:
        seen = await _look_again(connection, project_id, seen.layout.wanted)
    try:
        return await _make(connection, project_id, seen, macs)
    except NoRoom as none:
        raise capacity.no_room(seen.layout.wanted, none) from None


def _subnets(wanted: Wanted) -> set[UUID]:
    lists = {id(spec.vnics): spec.vnics for spec in wanted.specs}
    return {vnic.subnet_id for vnics in lists.values() for vnic in vnics}


def _may_let_go(wanted: Wanted) -> bool:
    """Whether hosts may be locked that have no room; one instance alone then has locked none."""
    return len(wanted.specs) > 1


async def _look_again(connection: AsyncConnection, project_id: UUID | None, wanted: Wanted) -> Seen:
    """Let go of all hosts, and wait for them."""
    if _may_let_go(wanted):
        driver = await driver_of(connection)
        vpcs = references.locking(project_id, _subnets(wanted))
        await driver.execute(f"ROLLBACK TO {_NO_HOSTS}; {vpcs}")
    return await look(connection, wanted, waiting=True)


async def _make(
    connection: AsyncConnection,
    project_id: UUID | None,
    seen: Seen,
    macs: npt.NDArray[np.uint64],
) -> Made:
    """Raises `NoRoom`, too."""
    layout, found = seen.layout, seen.found
    known = references.resolved(layout, project_id, found)
    ip = await allocation.addresses(connection, layout, known, allocation.IPV4, found)
    ip6 = await allocation.addresses(connection, layout, known, allocation.IPV6, found)
    reserved = capacity.reserved(layout, found)
    numbers, concerned = await _identities(connection, layout, known)
    ids = new_ids(len(layout.sizes) + len(layout.owner))
    place = known.of[layout.spec]
    return Made(
        layout,
        known.places,
        place,
        reserved.rooms,
        reserved.of,
        ids[: len(layout.sizes)],
        ids[len(layout.sizes) :],
        ip,
        ip6,
        macs,
        numbers[place],
        concerned,
        datetime.now(UTC),
    )


async def _identities(
    connection: AsyncConnection, layout: Layout, known: References
) -> tuple[Integers, set[UUID]]:
    """The identity of each place, and hosts whose rules have to learn of new ones."""
    sets = [groups_of(place.groups) for place in known.places]
    counts = {
        False: {group: found.ingress for group, found in known.groups.items()},
        True: {group: found.egress for group, found in known.groups.items()},
    }
    of = known.of[layout.spec]

    def field(index: int) -> str:
        return layout.field(int(np.argmax(of == index)), "security_group_ids")

    rule_limits.check(sets, counts, field)
    named = {group for group, found in known.groups.items() if found.named}
    numbers = np.full(len(sets), NONE)
    told: set[UUID] = set()
    for vpc_id, inside in sorted(_by_vpc(known.places).items()) if named else ():
        wanted = {sets[place] for place in inside}
        assigned = await identities.assign_named(connection, vpc_id, wanted, named)
        numbers[inside] = [assigned.numbers[sets[place]] for place in inside]
        told |= set(assigned.hosts)
    return numbers, told


def _by_vpc(places: Sequence[Place]) -> dict[UUID, list[int]]:
    """The places of each VPC."""
    found: dict[UUID, list[int]] = {}
    for index, place in enumerate(places):
        found.setdefault(place.vpc.id, []).append(index)
    return found


async def write(connection: AsyncConnection, made: Made, more: Sequence[Part] = ()) -> None:
    """Write the instances, and what gateways and hosts have to know of them, with ``more``.

    Raises `QuotaExceeded`.
    """
    if made.concerned:
        used = {made.rooms[room].host_id for room in np.unique(made.room)}
        await outbox.hosts_changed(connection, made.concerned - used)
    routes, revisions = _routes(made)
    host_revisions = np.array([room.revision + 1 for room in made.rooms])
    waiting = _cohorts(made, revisions, host_revisions)
    amounts = _amounts(made)
    found = await bulk.write(
        connection,
        [
            _instances(made, host_revisions),
            _vnics(made, revisions),
            _links(made),
            _pending(made, host_revisions),
        ],
        [
            *more,
            *_hosts(made, host_revisions),
            allocation.remembered(distinct([p.subnet for p in made.places])[0], made.ip, made.ip6),
            *outbox.recorded_routes(routes, waiting),
            quotas.spending(amounts),
        ],
    )
    quotas.check_spent(found, amounts)


def _routes(made: Made) -> tuple[list[VpcRoutes], Integers]:
    """The routes of each VPC in order of id, and the revision of each vNIC, shape (m,).

    That is the revision of the last of its routes.
    """
    found = []
    revisions = np.zeros(len(made.place), np.int64)
    vteps = np.array([int(room.vtep) for room in made.rooms], np.uint32)[made.host]
    by_vpc = [inside for _, inside in sorted(_by_vpc(made.places).items())]
    vpc_of = np.zeros(len(made.places), np.intp)
    for number, inside in enumerate(by_vpc):
        vpc_of[inside] = number
    of = vpc_of[made.place]
    for number, inside in enumerate(by_vpc):
        vpc = made.places[inside[0]].vpc
        here = np.flatnonzero(of == number)
        dual = here[made.ip6.present[here]]
        both = np.concatenate((here, dual))
        table = entries(
            RouteOp.UPSERT,
            np.concatenate((made.ip.keys[here], made.ip6.keys[dual])),
            vteps[both],
            made.macs[both],
            made.identity[both],
        )
        table = with_revisions(vpc.revision, table)
        revisions[here] = table["revision"][: len(here)]
        revisions[dual] = table["revision"][len(here) :]
        found.append(VpcRoutes(vpc.id, vpc.vni, vpc.revision, table))
    return found, revisions


def _cohorts(made: Made, revisions: Integers, host_revisions: Integers) -> list[Cohort]:
    """Who waits for the routes: those of one host that have one list of vNICs.

    ``revisions``, shape (m,): of each vNIC's routes. ``host_revisions``: of each room.
    """
    layout = made.layout
    times, which = distinct(layout.wanted.accepted)
    alike = made.room * len(layout.lists) + layout.list_of
    order = np.argsort(alike, kind="stable")
    sizes = layout.sizes[order]
    owner, number = spread(sizes)
    vnic = layout.firsts[order][owner] + number
    rooms = made.room[order].tolist()
    accepted = np.array([each.timestamp() for each in times], "<f8")[which[order]].tobytes()
    ids, vnic_ids = made.ids[order].tobytes(), made.vnic_ids[vnic].tobytes()
    vnis = _values(made, [place.vpc.vni for place in made.places])[vnic].tolist()
    last = revisions[vnic].tolist()
    found = []
    bounds = [0, *(np.flatnonzero(np.diff(alike[order])) + 1).tolist(), len(order)]
    ends = [0, *np.cumsum(sizes).tolist()]
    for begin, end in pairwise(bounds):
        room, first, after = rooms[begin], ends[begin], ends[end]
        found.append(
            Cohort(
                state=InstanceState.BUILDING,
                host_id=made.rooms[room].host_id,
                host_revision=int(host_revisions[room]),
                routes=latest(set(zip(vnis[first:after], last[first:after], strict=True))),
                committed_at=made.created_at.timestamp(),
                instances=ids[begin * ID_BYTES : end * ID_BYTES],
                vnics=vnic_ids[first * ID_BYTES : after * ID_BYTES],
                accepted_at=accepted[begin * 8 : end * 8],
            )
        )
    return found


def _hosts(made: Made, host_revisions: Integers) -> list[Part]:
    """What hosts have to know: their new vNICs, or that anything may have changed."""
    host = made.host
    counts = np.bincount(host, minlength=len(made.rooms))
    by_host = made.vnic_ids[np.argsort(host, kind="stable")].tobytes()
    ends = np.cumsum(counts) * 16
    changes = []
    for index in np.flatnonzero(counts).tolist():
        host_id, count, end = made.rooms[index].host_id, int(counts[index]), int(ends[index])
        new = None if host_id in made.concerned else by_host[end - 16 * count : end]
        changes.append((host_id, int(host_revisions[index]), count, new))
    return outbox.hosts_given(changes)


def _values(made: Made, of_places: Sequence[int]) -> Integers:
    """A value of each place as one of each vNIC, shape (m,)."""
    return np.array(of_places)[made.place]


def _ids_of(made: Made, of_places: list[UUID]) -> Ids:
    """An id of each place as one of each vNIC, shape (m, 16)."""
    return packed(of_places)[made.place]


# ---- rows ----------------------------------------------------------------------------------------


def _instances(made: Made, host_revisions: Integers) -> Rows:
    specs, count = made.layout.wanted.specs, len(made.ids)
    times, which = distinct(made.layout.wanted.accepted)
    created = np.repeat(bulk.microseconds([made.created_at]), count)
    owners = _ids_of(made, [place.subnet.project_id for place in made.places])
    return Rows(
        instances,
        {
            "id": made.ids,
            "project_id": owners[made.layout.firsts],
            "host_id": packed([room.host_id for room in made.rooms])[made.room],
            "state": _text(InstanceState.BUILDING, count),
            "host_revision": host_revisions[made.room].astype(">i8"),
            "accepted_at": bulk.microseconds(times)[which],
            "committed_at": created,
            "created_at": created,
        },
        {
            "name": [spec.name.encode() for spec in specs],
            "kind": [spec.kind.encode() for spec in specs],
        },
    )


def _pending(made: Made, host_revisions: Integers) -> Rows:
    """What each host has to run."""
    return Rows(
        pending,
        {
            "instance_id": made.ids,
            "host_id": packed([room.host_id for room in made.rooms])[made.room],
            "host_revision": host_revisions[made.room].astype(">i8"),
        },
        {},
    )


def _text(value: str, count: int) -> npt.NDArray[np.uint8]:
    """The same text in each row."""
    return np.frombuffer(value.encode() * count, np.uint8).reshape(count, -1)


def _vnics(made: Made, revisions: Integers) -> Rows:
    places, layout = made.places, made.layout
    ip = np.concatenate(
        (_heads(4, len(made.place)), made.ip.keys[:, _IPV4_AT:]),
        axis=1,
    )
    return Rows(
        vnics,
        {
            "id": made.vnic_ids,
            "project_id": _ids_of(made, [place.subnet.project_id for place in places]),
            "instance_id": made.ids[layout.owner],
            "vpc_id": _ids_of(made, [place.vpc.id for place in places]),
            "subnet_id": _ids_of(made, [place.subnet.id for place in places]),
            "host_id": packed([room.host_id for room in made.rooms])[made.host],
            "position": layout.position.astype(">i2"),
            "ip": ip,
            "mac": made.macs.astype(">i8"),
            "vni": _values(made, [place.vpc.vni for place in places]).astype(">i4"),
            "revision": revisions.astype(">i8"),
            "identity": made.identity.astype(">i4"),
        },
        {"ip6": _ip6(made.ip6)},
    )


def _heads(family: int, count: int) -> npt.NDArray[np.uint8]:
    """What stands before each address of an inet."""
    return np.frombuffer(INET_HEADS[family] * count, np.uint8).reshape(count, -1)


def _ip6(addresses: Addresses) -> list[bytes | None]:
    if not addresses.present.any():
        return [None] * len(addresses.present)
    found = np.concatenate((_heads(6, len(addresses.keys)), addresses.keys), axis=1)
    return [
        value if present else None
        for value, present in zip(
            bulk.slices(found.tobytes(), found.shape[1]), addresses.present.tolist(), strict=True
        )
    ]


def _links(made: Made) -> Rows:
    """Each vNIC's groups."""
    lengths = np.array([len(place.groups) for place in made.places])
    starts = np.cumsum(lengths) - lengths
    groups = packed([group for place in made.places for group in place.groups])
    vnic, number = spread(lengths[made.place])
    return Rows(
        vnic_security_groups,
        {
            "vnic_id": made.vnic_ids[vnic],
            "security_group_id": groups[starts[made.place][vnic] + number],
        },
        {},
    )


def _amounts(made: Made) -> dict[UUID, dict[Resource, int]]:
    """What each project takes, in order of id."""
    owners = [place.subnet.project_id for place in made.places]
    found: dict[UUID, Counter[Resource]] = {owner: Counter() for owner in sorted(set(owners))}
    for resource, of in (
        (Resource.INSTANCES, made.place[made.layout.firsts]),
        (Resource.VNICS, made.place),
    ):
        for owner, number in zip(owners, np.bincount(of, minlength=len(owners)), strict=True):
            found[owner][resource] += int(number)
    return {owner: dict(counted) for owner, counted in found.items()}
