"""Addresses and MACs for new vNICs, by sets: a few queries per subnet, whatever the number."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    Column,
    Integer,
    TextClause,
    Uuid,
    any_,
    bindparam,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, INET
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.addresses import Gap, search, take
from achelous_controller.domain.errors import Conflict, FieldError
from achelous_controller.domain.instances import MAC_PREFIX, VnicSpec
from achelous_controller.domain.networks import Address, assignable, why_not_assignable
from achelous_controller.store.references import Range, References, Subnet, refuse
from achelous_controller.store.schema import MAC, subnets, vnics


def _gaps(column: str) -> TextClause:
    """The first gaps between the addresses in use from ``low`` to ``high``, the bounds outside
    them.

    One ordered walk over the index, ended by the limit: its cost is that of the addresses passed.
    """
    return text(f"""
        SELECT before, ip
        FROM (
            SELECT ip, lag(ip, 1, :below) OVER (ORDER BY ip) AS before
            FROM (
                SELECT {column} AS ip FROM vnics
                WHERE subnet_id = :subnet AND {column} BETWEEN :low AND :high
                UNION ALL
                SELECT :above
            ) AS bounds
        ) AS pairs
        WHERE before + 1 < ip
        ORDER BY ip
        LIMIT :limit
    """).bindparams(  # noqa: S608  constants of this module
        bindparam("subnet", type_=Uuid),
        *(bindparam(name, type_=INET) for name in ("low", "high", "below", "above")),
    )


@dataclass(frozen=True, slots=True)
class Family:
    """Where the addresses of a family are. ``member``: of a vNIC in the request, and its column."""

    member: str
    next_ip: str
    gaps: TextClause

    @property
    def column(self) -> Column[Any]:
        return vnics.c[self.member]

    def given(self, spec: VnicSpec) -> Address | None:
        """What the request asks for."""
        address: Address | None = getattr(spec, self.member)
        return address

    def range(self, subnet: Subnet) -> Range | None:
        """What the subnet has of the family."""
        return subnet.range4 if self is IPV4 else subnet.range6


IPV4: Final = Family("ip", "next_ip", _gaps("ip"))
IPV6: Final = Family("ip6", "next_ip6", _gaps("ip6"))

_MACS: Final = select(MAC.next_value()).select_from(
    func.generate_series(1, bindparam("count", type_=Integer)).alias()
)


async def addresses(
    connection: AsyncConnection, specs: Sequence[VnicSpec], references: References, family: Family
) -> list[int]:
    """The address of each vNIC, given or chosen, as an integer. The VPCs are locked.

    0 where the subnet has no addresses of the family. Raises `Invalid` for an address that its
    subnet does not have, `Conflict` for one that is taken and for a subnet without a free one.
    """
    asked = [family.given(spec) for spec in specs]
    if any(asked):
        _check_given(specs, references, family)
        await _must_be_free(connection, specs, family)
    chosen = [0] * len(specs)
    automatic: dict[UUID, list[int]] = defaultdict(list)
    excluded: dict[UUID, set[int]] = defaultdict(set)
    for index, (spec, given) in enumerate(zip(specs, asked, strict=True)):
        if given is None:
            automatic[spec.subnet_id].append(index)
        else:
            chosen[index] = int(given)
            excluded[spec.subnet_id].add(int(given))
    for subnet_id, indices in automatic.items():
        subnet = references.subnets[subnet_id]
        if family.range(subnet) is None:
            continue
        free = await _free(connection, subnet, family, len(indices), excluded[subnet_id])
        if len(free) < len(indices):
            raise _exhausted(specs[indices[len(free)]], subnet, family, len(free), len(indices))
        for index, address in zip(indices, free, strict=True):
            chosen[index] = address
    return chosen


def _exhausted(spec: VnicSpec, subnet: Subnet, family: Family, left: int, wanted: int) -> Exception:
    held = family.range(subnet)
    return Conflict.field(
        f"{spec.field}.subnet_id",
        str(subnet.id),
        f"subnet {subnet.name} ({held.network if held else None}) has {left} free addresses left"
        f" and {wanted} were asked for",
    )


async def macs(connection: AsyncConnection, count: int) -> list[int]:
    """As many MACs, never used before, as integers of 48 bits."""
    numbers = await connection.execute(_MACS, {"count": count})
    return [MAC_PREFIX | number for number in numbers.scalars()]


def _check_given(specs: Sequence[VnicSpec], references: References, family: Family) -> None:
    """Whether an address that the request names is wrong, or twice in a subnet."""
    errors = []
    seen: dict[object, str] = {}
    for spec in specs:
        given = family.given(spec)
        if given is None:
            continue
        subnet = references.subnets[spec.subnet_id]
        why = _why_not(given, subnet, family)
        first = seen.setdefault((subnet.id, given), spec.field)
        if why is None and first is not spec.field:
            why = f"{given} is asked for twice, first by {first}"
        if why is not None:
            errors.append(FieldError(f"{spec.field}.{family.member}", str(given), why))
    refuse(errors)


def _why_not(address: Address, subnet: Subnet, family: Family) -> str | None:
    held = family.range(subnet)
    if held is None:
        return f"subnet {subnet.name} has no IPv6 network: leave it out"
    return why_not_assignable(address, held.network, held.router)


async def _must_be_free(
    connection: AsyncConnection, specs: Sequence[VnicSpec], family: Family
) -> None:
    wanted: dict[tuple[UUID, Address], VnicSpec] = {
        (spec.subnet_id, address): spec
        for spec in specs
        if (address := family.given(spec)) is not None
    }
    if not wanted:
        return
    ips = bindparam("ips", list({address for _, address in wanted}), type_=ARRAY(INET))
    query = select(vnics.c.subnet_id, family.column.label("ip")).where(
        vnics.c.subnet_id.in_({subnet_id for subnet_id, _ in wanted}), family.column == any_(ips)
    )
    taken = {(row.subnet_id, row.ip) for row in await connection.execute(query)}
    errors = [
        FieldError(f"{spec.field}.{family.member}", str(key[1]), f"{key[1]} is another vNIC's")
        for key, spec in wanted.items()
        if key in taken
    ]
    refuse(errors, Conflict)


async def _free(
    connection: AsyncConnection, subnet: Subnet, family: Family, wanted: int, given: set[int]
) -> list[int]:
    """Up to ``wanted`` free addresses, from where the last search ended, and remember this end."""
    held = family.range(subnet)
    if held is None:
        return []
    network = held.network.network_address
    base = int(network)
    excluded = {address - base for address in (*given, int(held.router))}
    excluded = {offset for offset in excluded if 0 <= offset < 1 << 64}  # 169.254.1.1 is outside
    first, last = (bound - base for bound in assignable(held.network))
    gaps: list[Gap] = []
    for low, high in search(first, last, int(held.next_ip) - base):
        bounds = {"low": low, "high": high, "below": low - 1, "above": high + 1}
        rows = await connection.execute(
            family.gaps,
            {"subnet": subnet.id, "limit": wanted + len(excluded)}
            | {name: network + offset for name, offset in bounds.items()},
        )
        gaps += [Gap(int(row.before) + 1 - base, int(row.ip) - 1 - base) for row in rows]
        found = take(gaps, wanted, excluded)
        if len(found) == wanted:
            following = network + min(int(found[-1]) + 1, last)
            await _remember(connection, subnet, family, following)
            break
    return [base + offset for offset in found.tolist()]


async def _remember(
    connection: AsyncConnection, subnet: Subnet, family: Family, following: Address
) -> None:
    values = {family.next_ip: following}
    await connection.execute(update(subnets).where(subnets.c.id == subnet.id).values(values))
