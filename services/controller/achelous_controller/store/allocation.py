"""Addresses and MACs for new vNICs, by sets: a few queries per subnet, whatever the number."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from uuid import UUID

import numpy as np
import numpy.typing as npt
from sqlalchemy import Integer, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.addresses import Addresses as Offsets
from achelous_controller.domain.addresses import Gap, take
from achelous_controller.domain.errors import Conflict, FieldError
from achelous_controller.domain.instances import MAC_PREFIX, VnicSpec
from achelous_controller.domain.layout import Layout, distinct
from achelous_controller.domain.networks import Address, assignable, why_not_assignable
from achelous_controller.domain.route_entries import Keys
from achelous_controller.store import bulk
from achelous_controller.store.bulk import Found, Part
from achelous_controller.store.database import Database
from achelous_controller.store.references import Place, Range, References, Subnet, refuse
from achelous_controller.store.schema import MAC, MAC_BLOCK
from achelous_shared.routes import ip_bytes


def _gaps(column: str, low: str, high: str) -> str:
    """The first gaps between the addresses in use from ``low`` to ``high`` of subnets, which are
    given by id, with how many gaps: (subnet, the address before the gap, the one after it).

    One ordered walk over the index, ended by the limit: its cost is that of the addresses passed.
    """
    return f"""
        SELECT ROW(s.id, gap.before, gap.ip)
        FROM unnest({{}}::uuid[], {{}}::int[]) AS wanted (id, count)
        JOIN subnets AS s ON s.id = wanted.id
        JOIN vpcs AS v ON v.id = s.vpc_id
        CROSS JOIN LATERAL (
            SELECT before, ip
            FROM (
                SELECT ip, lag(ip, 1, {low} - 1) OVER (ORDER BY ip) AS before
                FROM (
                    SELECT {column} AS ip FROM vnics
                    WHERE vni = v.vni AND {column} BETWEEN {low} AND {high}
                    UNION ALL
                    SELECT {high} + 1
                ) AS bounds
            ) AS pairs
            WHERE before + 1 < ip
            ORDER BY ip
            LIMIT wanted.count
        ) AS gap
    """  # noqa: S608  constants of this module


def _taken(column: str) -> str:
    """Which of these addresses vNICs have in the VPCs of these subnets: (VNI, address)."""
    return f"""
        SELECT ROW(vni, {column}) FROM vnics
        WHERE {column} = ANY({{}}::inet[]) AND vni IN (
            SELECT v.vni FROM subnets AS s JOIN vpcs AS v ON v.id = s.vpc_id
            WHERE s.id = ANY({{}}::uuid[])
        )
    """  # noqa: S608  constants of this module


@dataclass(frozen=True, slots=True)
class Family:
    """Where the addresses of a family are. ``member``: of a vNIC in the request, and its column.

    Statements: ``onwards`` finds free addresses from where the last search ended, ``before`` those
    that lie before it, and ``taken`` which of some addresses are in use.
    """

    member: str
    onwards: str
    before: str
    taken: str

    def given(self, spec: VnicSpec) -> Address | None:
        """What the request asks for."""
        address: Address | None = getattr(spec, self.member)
        return address

    def range(self, subnet: Subnet) -> Range | None:
        """What the subnet has of the family."""
        return subnet.range4 if self is IPV4 else subnet.range6


IPV4: Final = Family(
    "ip",
    _gaps("ip", "s.next_ip", "set_masklen(broadcast(s.cidr), 32)"),
    _gaps("ip", "set_masklen(s.cidr::inet, 32)", "s.next_ip - 1"),
    _taken("ip"),
)
IPV6: Final = Family(
    "ip6",
    _gaps("ip6", "s.next_ip6", "set_masklen(broadcast(s.cidr6), 128)"),
    _gaps("ip6", "set_masklen(s.cidr6::inet, 128)", "s.next_ip6 - 1"),
    _taken("ip6"),
)
FAMILIES: Final = (IPV4, IPV6)

WALKING: Final = "SET LOCAL enable_bitmapscan = off"
"""For their statements, of `Database.write`. Their plans are kept, and know nothing of how many
addresses there are: for a few, it would be cheaper to gather and sort them."""

_IPV4_MAPPED: Final = 0xFFFF << 32
_LOW: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of m vNICs in one family.

    ``keys``, shape (m, 16): their bytes, IPv4 mapped; where ``present``, shape (m,), is False there
    is none. ``following``: where the search in each subnet goes on, to be remembered.
    """

    keys: Keys
    present: npt.NDArray[np.bool]
    following: dict[UUID, Address]


def reading(layout: Layout) -> list[Part]:
    """Reads what addresses are free where some are chosen, and which of those given are taken.

    The VPCs are locked.
    """
    return [part for family in FAMILIES for part in _reading(layout, family)]


def _reading(layout: Layout, family: Family) -> list[Part]:
    chosen: Counter[UUID] = Counter()
    given: Counter[UUID] = Counter()
    addresses: set[Address] = set()
    numbers = np.bincount(layout.spec, minlength=len(layout.specs)).tolist()
    for spec, number in zip(layout.specs, numbers, strict=True):
        if (address := family.given(spec)) is None:
            chosen[spec.subnet_id] += number
        else:
            given[spec.subnet_id] += number
            addresses.add(address)
    # the router's address and those given may be among the free ones
    counts = [number + given[subnet_id] + 1 for subnet_id, number in chosen.items()]
    parts = [Part(f"free_{family.member}", family.onwards, (list(chosen), counts))]
    if addresses:
        arguments = list(addresses), list(given)
        parts.append(Part(f"taken_{family.member}", family.taken, arguments))
    return parts


async def addresses(
    connection: AsyncConnection,
    layout: Layout,
    references: References,
    family: Family,
    found: Found,
) -> Addresses:
    """The address of each vNIC, given or chosen, by what `reading` has found.

    Raises `Invalid` for an address that its subnet does not have, `Conflict` for one that is taken
    and for a subnet without a free one.
    """
    keys = np.zeros((len(layout.spec), 2), ">u8")
    chosen = np.ones(len(keys), bool)  # or given
    asked = [family.given(spec) for spec in layout.specs]
    excluded: dict[UUID, set[int]] = defaultdict(set)
    if any(asked):
        given = [
            _Given(vnic, references.places[references.of[spec]], address)
            for vnic, spec in enumerate(layout.spec.tolist())
            if (address := asked[spec]) is not None
        ]
        _check_given(layout, given, family)
        _must_be_free(layout, given, family, found)
        named = [vnic for vnic, _, _ in given]
        chosen[named] = False
        packed = b"".join([ip_bytes(address) for _, _, address in given])
        keys[named] = np.frombuffer(packed, ">u8").reshape(-1, 2)
        for _, place, address in given:
            excluded[place.subnet.id].add(int(address))
    present = ~chosen
    following: dict[UUID, Address] = {}
    subnets, which = distinct([place.subnet for place in references.places])
    subnet_of = which[references.of][layout.spec]
    onwards = found[f"free_{family.member}"]
    for number, subnet in enumerate(subnets):
        vnics_here = np.flatnonzero(chosen & (subnet_of == number))
        held = family.range(subnet)
        if held is None or not len(vnics_here):
            continue
        rows = [row for row in onwards if row[0] == subnet.id]
        free, after = await _free(
            connection, subnet.id, held, family, len(vnics_here), excluded[subnet.id], rows
        )
        if len(free) < len(vnics_here):
            field = layout.field(int(vnics_here[len(free)]), "subnet_id")
            raise _exhausted(field, subnet, held, len(free), len(vnics_here))
        base = int(held.network.network_address)
        base += _IPV4_MAPPED if family is IPV4 else 0
        keys[vnics_here, 0] = base >> 64
        keys[vnics_here, 1] = free + np.uint64(base & _LOW)
        present[vnics_here] = True
        following[subnet.id] = after
    return Addresses(keys.view(np.uint8), present, following)


def _exhausted(field: str, subnet: Subnet, held: Range, left: int, wanted: int) -> Conflict:
    return Conflict.field(
        field,
        str(subnet.id),
        f"subnet {subnet.name} ({held.network}) has {left} free addresses left"
        f" and {wanted} were asked for",
    )


class _Given(NamedTuple):
    """An address that the request names, of a vNIC."""

    vnic: int
    place: Place
    address: Address


def _check_given(layout: Layout, given: Sequence[_Given], family: Family) -> None:
    """Whether an address that the request names is wrong, or twice in a subnet."""
    errors = []
    seen: dict[object, int] = {}
    for vnic, place, address in given:
        why = _why_not(address, place.subnet, family)
        first = seen.setdefault((place.vpc.id, address), vnic)
        if why is None and first != vnic:
            why = f"{address} is asked for twice, first by {layout.path(first)}"
        if why is not None:
            errors.append(FieldError(layout.field(vnic, family.member), str(address), why))
    refuse(errors)


def _why_not(address: Address, subnet: Subnet, family: Family) -> str | None:
    held = family.range(subnet)
    if held is None:
        return f"subnet {subnet.name} has no IPv6 network: leave it out"
    return why_not_assignable(address, held.network, held.router)


def _must_be_free(layout: Layout, given: Sequence[_Given], family: Family, found: Found) -> None:
    taken = set(found[f"taken_{family.member}"])
    errors = [
        FieldError(layout.field(vnic, family.member), str(address), f"{address} is another vNIC's")
        for vnic, place, address in given
        if (place.vpc.vni, address) in taken
    ]
    refuse(errors, Conflict)


_GapRow = tuple[UUID, Address, Address]
"""A subnet, the address before a gap, the address after it."""


async def _free(
    connection: AsyncConnection,
    subnet_id: UUID,
    held: Range,
    family: Family,
    wanted: int,
    given: set[int],
    onwards: Sequence[_GapRow],
) -> tuple[Offsets, Address]:
    """Up to ``wanted`` free addresses, counted from the network's, where the last search ended on.

    Also where this one ended. ``onwards``: what `Family.onwards` found.
    """
    network = held.network.network_address
    base = int(network)
    excluded = {address - base for address in (*given, int(held.router))}
    excluded = {offset for offset in excluded if 0 <= offset < 1 << 64}  # 169.254.1.1 is outside
    gaps = _gaps_of(held, onwards)
    found = take(gaps, wanted, excluded)
    if len(found) < wanted:
        # one gap may be the network's own address, others of those excluded
        rest = Part("free", family.before, ([subnet_id], [wanted + len(excluded) + 1]))
        gaps += _gaps_of(held, (await bulk.read(connection, [rest]))["free"])
        found = take(gaps, wanted, excluded)
    first, last = (bound - base for bound in assignable(held.network))
    following = int(found[-1]) + 1 if len(found) else first
    return found, network + min(following, last)


def _gaps_of(held: Range, rows: Sequence[_GapRow]) -> list[Gap]:
    """Without the ends of the network, which no vNIC can have."""
    base = int(held.network.network_address)
    first, last = assignable(held.network)
    bounds = [(max(int(low) + 1, first), min(int(high) - 1, last)) for _, low, high in rows]
    return [Gap(low - base, high - base) for low, high in bounds if low <= high]


def remembered(subnets: Iterable[Subnet], ip4: Addresses, ip6: Addresses) -> Part:
    """Writes where the searches go on."""
    wanted = [(s.id, ip4.following.get(s.id), ip6.following.get(s.id)) for s in subnets]
    return Part(
        "remembered",
        """
        UPDATE subnets AS s
        SET next_ip = coalesce(after.ip, s.next_ip), next_ip6 = coalesce(after.ip6, s.next_ip6)
        FROM unnest({}::uuid[], {}::inet[], {}::inet[]) AS after (id, ip, ip6)
        WHERE s.id = after.id
        """,
        tuple(list(column) for column in zip(*wanted, strict=True)),
    )


class Macs:
    """MACs, never used before, taken from the database by blocks."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._blocks: deque[range] = deque()

    async def take(self, count: int) -> npt.NDArray[np.uint64]:
        """As many, as integers of 48 bits.

        Not to be called in a transaction: a block is only taken when its taking is committed.
        """
        parts = self._held(count)
        while (missing := count - sum(map(len, parts))) > 0:
            async with self._database.glance() as connection:
                values = {"blocks": -(-missing // MAC_BLOCK)}
                found = (await connection.execute(_BLOCKS, values)).scalars().all()
            self._blocks += [range(begin, begin + MAC_BLOCK) for begin in found]
            parts += self._held(missing)
        numbers = np.concatenate([np.arange(p.start, p.stop, dtype=np.uint64) for p in parts])
        return numbers | np.uint64(MAC_PREFIX)

    def _held(self, count: int) -> list[range]:
        """As many as are here, at most ``count``."""
        parts = []
        while count and self._blocks:
            block = self._blocks.popleft()
            parts.append(block[:count])
            if block[count:]:
                self._blocks.appendleft(block[count:])
            count -= len(parts[-1])
        return parts


_BLOCKS: Final = select(MAC.next_value()).select_from(
    func.generate_series(1, bindparam("blocks", type_=Integer)).alias()
)
