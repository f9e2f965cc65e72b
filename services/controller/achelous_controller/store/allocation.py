"""Addresses and MACs for new vNICs, by sets: a few queries per subnet, whatever the number."""

from collections import defaultdict
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Final

from sqlalchemy import Integer, Uuid, any_, bindparam, func, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, INET
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.addresses import Gap, search, take
from achelous_controller.domain.errors import Conflict, FieldError
from achelous_controller.domain.instances import MAC_PREFIX, VnicSpec
from achelous_controller.domain.networks import assignable, why_not_assignable
from achelous_controller.store.references import References, Subnet, refuse
from achelous_controller.store.schema import MAC, subnets, vnics

GAPS: Final = text("""
    SELECT before, ip
    FROM (
        SELECT ip, lag(ip, 1, :below) OVER (ORDER BY ip) AS before
        FROM (
            SELECT ip FROM vnics WHERE subnet_id = :subnet AND ip BETWEEN :low AND :high
            UNION ALL
            SELECT :above
        ) AS bounds
    ) AS pairs
    WHERE ip - before > 1
    ORDER BY ip
    LIMIT :limit
""").bindparams(
    bindparam("subnet", type_=Uuid),
    *(bindparam(name, type_=INET) for name in ("low", "high", "below", "above")),
)
"""The first gaps between the addresses in use from ``low`` to ``high``, the bounds outside them.

One ordered walk over the index, ended by the limit: its cost is that of the addresses passed.
"""

_MACS: Final = select(MAC.next_value()).select_from(
    func.generate_series(1, bindparam("count", type_=Integer)).alias()
)

_REMEMBER: Final = (
    update(subnets)
    .where(subnets.c.id == bindparam("subnet"))
    .values(next_ip=bindparam("following", type_=INET))
)


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
    numbers = await connection.execute(_MACS, {"count": count})
    return [MAC_PREFIX | number for number in numbers.scalars()]


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
        bounds = {
            "low": IPv4Address(low),
            "high": IPv4Address(high),
            "below": IPv4Address(low - 1),
            "above": IPv4Address(high + 1),
        }
        rows = await connection.execute(
            GAPS, {"subnet": subnet.id, "limit": wanted + len(excluded), **bounds}
        )
        gaps += [Gap(int(row.before) + 1, int(row.ip) - 1) for row in rows]
        found = take(gaps, wanted, excluded)
        if len(found) == wanted:
            following = IPv4Address(min(int(found[-1]) + 1, last))
            await connection.execute(_REMEMBER, {"subnet": subnet.id, "following": following})
            break
    return [int(address) for address in found]
