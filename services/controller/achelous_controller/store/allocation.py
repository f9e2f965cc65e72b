"""Addresses and MACs for new vNICs, by sets: a few queries per subnet, whatever the number."""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

import numpy as np
import numpy.typing as npt
from sqlalchemy import Column, Integer, any_, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY, INET
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.addresses import Addresses as Offsets
from achelous_controller.domain.addresses import Gap, search, take
from achelous_controller.domain.errors import Conflict, FieldError
from achelous_controller.domain.instances import MAC_PREFIX, VnicSpec
from achelous_controller.domain.layout import Layout, distinct
from achelous_controller.domain.networks import Address, assignable, why_not_assignable
from achelous_controller.domain.route_entries import Keys
from achelous_controller.store.bulk import Part
from achelous_controller.store.database import Database, driver_of
from achelous_controller.store.references import Place, Range, References, Subnet, refuse
from achelous_controller.store.schema import MAC, MAC_BLOCK, vnics
from achelous_shared.routes import ip_bytes


def _gaps(column: str) -> str:
    """The first gaps ($6: how many) between the addresses in use in VNI $1 from $2 to $3, the
    bounds $4 and $5 outside them.

    One ordered walk over the index, ended by the limit: its cost is that of the addresses passed.
    """
    return f"""
        SELECT before, ip
        FROM (
            SELECT ip, lag(ip, 1, $4) OVER (ORDER BY ip) AS before
            FROM (
                SELECT {column} AS ip FROM vnics
                WHERE vni = $1 AND {column} BETWEEN $2 AND $3
                UNION ALL
                SELECT $5::inet
            ) AS bounds
        ) AS pairs
        WHERE before + 1 < ip
        ORDER BY ip
        LIMIT $6
    """  # noqa: S608  constants of this module


@dataclass(frozen=True, slots=True)
class Family:
    """Where the addresses of a family are. ``member``: of a vNIC in the request, and its column."""

    member: str
    gaps: str

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


IPV4: Final = Family("ip", _gaps("ip"))
IPV6: Final = Family("ip6", _gaps("ip6"))

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


async def addresses(
    connection: AsyncConnection, layout: Layout, references: References, family: Family
) -> Addresses:
    """The address of each vNIC, given or chosen. The VPCs are locked.

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
        await _must_be_free(connection, layout, given, family)
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
    vnis = {place.subnet.id: place.vpc.vni for place in references.places}
    for number, subnet in enumerate(subnets):
        vnics_here = np.flatnonzero(chosen & (subnet_of == number))
        held = family.range(subnet)
        if held is None or not len(vnics_here):
            continue
        free, after = await _free(
            connection, vnis[subnet.id], held, family, len(vnics_here), excluded[subnet.id]
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


async def _must_be_free(
    connection: AsyncConnection, layout: Layout, given: Sequence[_Given], family: Family
) -> None:
    wanted = {(place.vpc.vni, address): vnic for vnic, place, address in given}
    ips = bindparam("ips", list({address for _, address in wanted}), type_=ARRAY(INET))
    query = select(vnics.c.vni, family.column.label("ip")).where(
        vnics.c.vni.in_({vni for vni, _ in wanted}), family.column == any_(ips)
    )
    taken = {(row.vni, row.ip) for row in await connection.execute(query)}
    errors = [
        FieldError(layout.field(vnic, family.member), str(key[1]), f"{key[1]} is another vNIC's")
        for key, vnic in wanted.items()
        if key in taken
    ]
    refuse(errors, Conflict)


async def _free(
    connection: AsyncConnection,
    vni: int,
    held: Range,
    family: Family,
    wanted: int,
    given: set[int],
) -> tuple[Offsets, Address]:
    """Up to ``wanted`` free addresses, counted from the network's, where the last search ended on.

    Also where this one ended.
    """
    network = held.network.network_address
    base = int(network)
    excluded = {address - base for address in (*given, int(held.router))}
    excluded = {offset for offset in excluded if 0 <= offset < 1 << 64}  # 169.254.1.1 is outside
    first, last = (bound - base for bound in assignable(held.network))
    driver = await driver_of(connection)
    gaps: list[Gap] = []
    for low, high in search(first, last, int(held.next_ip) - base):
        bounds = [network + offset for offset in (low, high, low - 1, high + 1)]
        rows = await driver.fetch(family.gaps, vni, *bounds, wanted + len(excluded))
        gaps += [Gap(int(row["before"]) + 1 - base, int(row["ip"]) - 1 - base) for row in rows]
        found = take(gaps, wanted, excluded)
        if len(found) == wanted:
            break
    following = int(found[-1]) + 1 if len(found) else first
    return found, network + min(following, last)


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
