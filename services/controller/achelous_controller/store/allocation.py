"""Addresses and MACs for new vNICs, by sets: a few queries per subnet, whatever the number."""

from collections import defaultdict
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Any

from sqlalchemy import Select, any_, bindparam, func, literal, select, union_all, update
from sqlalchemy.dialects.postgresql import ARRAY, INET
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.addresses import Gap, search, take
from achelous_controller.domain.errors import Conflict, FieldError
from achelous_controller.domain.instances import MAC_PREFIX, VnicSpec
from achelous_controller.domain.networks import assignable, why_not_assignable
from achelous_controller.store.references import References, Subnet, refuse
from achelous_controller.store.schema import MAC, subnets, vnics


async def addresses(
    connection: AsyncConnection, specs: Sequence[VnicSpec], references: References
) -> list[int]:
    """The address of each vNIC, given or chosen, as an integer. The VPCs are locked.

    Raises `Invalid` for an address that its subnet does not have, `Conflict` for one that is
    taken and for a subnet without a free one.
    """
    given = _given(specs, references)
    await _must_be_free(connection, specs, given)
    chosen = [0] * len(specs)
    automatic: dict[Subnet, list[int]] = defaultdict(list)
    excluded: dict[Subnet, set[int]] = defaultdict(set)
    for index, spec in enumerate(specs):
        subnet = references.subnets[spec.subnet_id]
        if spec.ip is None:
            automatic[subnet].append(index)
        else:
            chosen[index] = int(spec.ip)
            excluded[subnet].add(int(spec.ip))
    for subnet, indices in automatic.items():
        free = await _free(connection, subnet, len(indices), excluded[subnet])
        if len(free) < len(indices):
            spec = specs[indices[len(free)]]
            raise Conflict.field(
                f"{spec.field}.subnet_id",
                str(subnet.id),
                f"subnet {subnet.name} ({subnet.network}) has {len(free)} free addresses left and"
                f" {len(indices)} were asked for",
            )
        for index, address in zip(indices, free, strict=True):
            chosen[index] = address
    return chosen


async def macs(connection: AsyncConnection, count: int) -> list[int]:
    """As many MACs, never used before, as integers of 48 bits."""
    query = select(MAC.next_value()).select_from(func.generate_series(1, count).alias())
    return [MAC_PREFIX | number for number in (await connection.execute(query)).scalars()]


def _given(specs: Sequence[VnicSpec], references: References) -> list[int]:
    """The addresses that the request names, none of them wrong or twice in a VPC."""
    errors = []
    seen: dict[object, str] = {}
    for spec in specs:
        if spec.ip is None:
            continue
        subnet = references.subnets[spec.subnet_id]
        why = why_not_assignable(spec.ip, subnet.network, subnet.router)
        first = seen.setdefault((subnet.id, spec.ip), spec.field)
        if why is None and first is not spec.field:
            why = f"{spec.ip} is asked for twice, first by {first}"
        if why is not None:
            errors.append(FieldError(f"{spec.field}.ip", str(spec.ip), why))
    refuse(errors)
    return [int(spec.ip) for spec in specs if spec.ip is not None]


async def _must_be_free(
    connection: AsyncConnection, specs: Sequence[VnicSpec], given: Sequence[int]
) -> None:
    if not given:
        return
    wanted = {(spec.subnet_id, spec.ip): spec for spec in specs if spec.ip is not None}
    ips = bindparam("ips", [IPv4Address(ip) for ip in set(given)], type_=ARRAY(INET))
    query = select(vnics.c.subnet_id, vnics.c.ip).where(
        vnics.c.subnet_id.in_({subnet_id for subnet_id, _ in wanted}), vnics.c.ip == any_(ips)
    )
    taken = {(row.subnet_id, row.ip) for row in await connection.execute(query)}
    errors = [
        FieldError(f"{spec.field}.ip", str(spec.ip), f"{spec.ip} is another vNIC's")
        for key, spec in wanted.items()
        if key in taken
    ]
    refuse(errors, Conflict)


async def _free(
    connection: AsyncConnection, subnet: Subnet, wanted: int, given: set[int]
) -> list[int]:
    """Up to ``wanted`` free addresses, from where the last search ended, and remember this end."""
    excluded = {*given, int(subnet.router)}
    first, last = assignable(subnet.network)
    gaps: list[Gap] = []
    for low, high in search(first, last, int(subnet.next_ip)):
        rows = await connection.execute(_gaps(subnet, low, high, wanted + len(excluded)))
        gaps += [Gap(int(row.before) + 1, int(row.ip) - 1) for row in rows]
        found = take(gaps, wanted, excluded)
        if len(found) == wanted:
            following = IPv4Address(min(int(found[-1]) + 1, last))
            await connection.execute(
                update(subnets).where(subnets.c.id == subnet.id).values(next_ip=following)
            )
            break
    return [int(address) for address in found]


def _gaps(subnet: Subnet, low: int, high: int, limit: int) -> Select[Any]:
    """The first ``limit`` gaps between the addresses in use from ``low`` to ``high``.

    Each row: the addresses ``before`` and ``ip`` that bound a gap, both outside it. One ordered
    walk over the index, ended by the limit: its cost is that of the addresses passed.
    """
    below, above = IPv4Address(low - 1), IPv4Address(high + 1)
    used = union_all(
        select(vnics.c.ip).where(
            vnics.c.subnet_id == subnet.id,
            vnics.c.ip.between(IPv4Address(low), IPv4Address(high)),
        ),
        select(literal(above, INET).label("ip")),
    ).subquery()
    previous = func.lag(used.c.ip, 1, literal(below, INET)).over(order_by=used.c.ip)
    pairs = select(previous.label("before"), used.c.ip).subquery()
    is_gap = pairs.c.ip.op("-")(pairs.c.before) > 1
    return select(pairs).where(is_gap).order_by(pairs.c.ip).limit(limit)
