"""The documents of hosts and of the fleet, each made from one snapshot of the database."""

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from achelous_controller.programming.sql import ip16, mac6, optional, prefix_len
from achelous_shared import names
from achelous_shared.messages import (
    FleetDocument,
    GatewayAddress,
    HostDocument,
    Port,
    SecurityRule,
)

_PORTS: Final = f"""
    SELECT v.host_id AS owner, v.subnet_id AS subnet, v.id AS vnic_id, v.instance_id, v.vni,
        v.revision, v.identity, {mac6("v.mac")} AS mac, {ip16("v.ip")} AS ip,
        {optional(ip16("v.ip6"), "v.ip6", "''::bytea")} AS ip6,
        translate(i.name, '._', '--') AS hostname
    FROM vnics AS v JOIN instances AS i ON i.id = v.instance_id
    WHERE {{which}} AND NOT v.withdrawn
    ORDER BY v.id
"""  # noqa: S608  constants of this module
_LINKS: Final = """
    SELECT g.vnic_id, g.security_group_id
    FROM vnics AS v JOIN vnic_security_groups AS g ON g.vnic_id = v.id
    WHERE {which} AND NOT v.withdrawn
    ORDER BY g.vnic_id, g.security_group_id
"""
_ALL: Final = "v.host_id = ANY(CAST(:ids AS uuid[]))"
_SOME: Final = "v.id = ANY(CAST(:ids AS uuid[]))"

_SUBNETS: Final = text(f"""
    SELECT id, {prefix_len("cidr")} AS prefix_len, {ip16("gateway_ip")} AS router,
        masklen(cidr6) AS prefix_len6,
        {optional(ip16("gateway_ip6"), "gateway_ip6", "''::bytea")} AS router6,
        ARRAY(
            SELECT {ip16("server")} FROM unnest(dns_servers) WITH ORDINALITY AS d (server, place)
            ORDER BY place
        ) AS dns,
        dhcp_lease_s AS lease_s
    FROM subnets WHERE id = ANY(CAST(:subnets AS uuid[]))
""")  # noqa: S608  constants of this module

_RULES: Final = text(f"""
    SELECT security_group_id AS owner, id AS rule_id, egress, protocol, port_min, port_max,
        {ip16("COALESCE(remote, '::/0'::cidr)")} AS remote,
        {prefix_len("COALESCE(remote, '::/0'::cidr)")} AS remote_len,
        COALESCE(family(remote) = 6, false) AS v6_only,
        remote_group_id AS remote_group, allow, priority
    FROM security_group_rules
    WHERE security_group_id = ANY(CAST(:groups AS uuid[]))
    ORDER BY id
""")  # noqa: S608  constants of this module

_IDENTITIES: Final = text("""
    SELECT p.vni, i.number, i.groups
    FROM identities AS i JOIN vpcs AS p ON p.id = i.vpc_id
    WHERE i.groups && CAST(:named AS uuid[]) AND i.vpc_id IN (
        SELECT vpc_id FROM security_groups WHERE id = ANY(CAST(:named AS uuid[]))
    )
    ORDER BY p.vni, i.number
""")

_PREPROGRAMMED: Final = text("""
    SELECT vni FROM vpcs
    WHERE vni = ANY(CAST(:vnis AS integer[])) AND programming_model = 'preprogrammed'
""")

Identity = tuple[int, int, Sequence[UUID]]
"""VNI, number, and the security groups of those who have it."""


@dataclass(frozen=True, slots=True)
class PortQueries:
    """What reads ports: of hosts, or the named ones alone."""

    ports: TextClause
    links: TextClause


OF_HOSTS: Final = PortQueries(text(_PORTS.format(which=_ALL)), text(_LINKS.format(which=_ALL)))
NAMED: Final = PortQueries(text(_PORTS.format(which=_SOME)), text(_LINKS.format(which=_SOME)))


async def read_ports(
    connection: AsyncConnection, queries: PortQueries, ids: Sequence[UUID]
) -> dict[UUID, list[Port]]:
    """Host -> its ports in order of vNIC, of these hosts (`OF_HOSTS`) or these vNICs (`NAMED`)."""
    ports: dict[UUID, list[Port]] = defaultdict(list)
    rows = (await connection.execute(queries.ports, {"ids": ids})).all()
    if not rows:
        return ports
    groups: dict[UUID, tuple[UUID, ...]] = defaultdict(tuple)
    for vnic_id, group_id in await connection.execute(queries.links, {"ids": ids}):
        groups[vnic_id] += (group_id,)
    wanted = {"subnets": list({row.subnet for row in rows})}
    subnets = {row.id: row for row in await connection.execute(_SUBNETS, wanted)}
    for owner, subnet, vnic_id, instance_id, vni, revision, identity, mac, ip, ip6, name in rows:
        net = subnets[subnet]
        ports[owner].append(
            Port(
                vnic_id=vnic_id,
                instance_id=instance_id,
                vni=vni,
                mac=mac,
                ip=ip,
                prefix_len=net.prefix_len,
                router=net.router,
                mtu=names.GUEST_MTU,
                security_groups=groups[vnic_id],
                revision=revision,
                ip6=ip6,
                prefix_len6=net.prefix_len6 if ip6 else 0,
                router6=net.router6 if ip6 else b"",
                dns=tuple(net.dns),
                lease_s=net.lease_s,
                hostname=name,
                identity=identity,
            )
        )
    return ports


async def read_rules(
    connection: AsyncConnection, groups: Collection[UUID]
) -> tuple[dict[UUID, list[SecurityRule]], list[Identity]]:
    """The rules of these groups, and the identities of who is in a group that one of them names."""
    rules: dict[UUID, list[SecurityRule]] = defaultdict(list)
    for row in await connection.execute(_RULES, {"groups": list(groups)}):
        owner, fields = _split(row)
        rules[owner].append(SecurityRule(**fields))
    remotes = {rule.remote_group for some in rules.values() for rule in some} - {None}
    named = {"named": list(remotes)}
    found = await connection.execute(_IDENTITIES, named) if remotes else ()
    return rules, [(vni, number, of) for vni, number, of in found]


async def read_preprogrammed(connection: AsyncConnection, vnis: Collection[int]) -> frozenset[int]:
    """Those of these VPCs whose routes every host of theirs holds."""
    found = await connection.execute(_PREPROGRAMMED, {"vnis": list(vnis)})
    return frozenset(found.scalars())


def document_of(
    host_id: UUID,
    revision: int,
    ports: tuple[Port, ...],
    groups: Collection[UUID],
    rules: Mapping[UUID, Sequence[SecurityRule]],
    identities: Iterable[Identity],
    preprogrammed: Iterable[int],
) -> HostDocument:
    """A host's document: its ports, the security ``groups`` that they name, without rules too, the
    identities of who is in a group that one of these rules names, and those of its VPCs that are
    ``preprogrammed``."""
    found = {group: tuple(rules.get(group, ())) for group in sorted(groups)}
    named = {rule.remote_group for some in found.values() for rule in some}
    members: dict[int, dict[int, tuple[UUID, ...]]] = defaultdict(dict)
    for vni, number, of in identities:
        if inside := tuple(group for group in of if group in named):
            members[vni][number] = inside
    return HostDocument(
        host_id=host_id,
        revision=revision,
        ports=ports,
        security_groups=found,
        identities=dict(members),
        preprogrammed=tuple(sorted(preprogrammed)),
    )


async def read_fleet_document(engine: AsyncEngine) -> FleetDocument:
    """The fleet's document as the database stands now; gateways in order of name."""
    async with snapshot(engine) as connection:
        revision = (await connection.execute(text("SELECT revision FROM fleet"))).scalar_one()
        vteps = await connection.execute(
            text("SELECT string_agg(substr(inet_send(vtep), 5), '' ORDER BY id) FROM hosts")
        )
        gateways = await connection.execute(
            text("SELECT id, name, vtep - '0.0.0.0'::inet, shards FROM gateways ORDER BY name")
        )
        return FleetDocument(
            revision=revision,
            host_vteps=vteps.scalar_one() or b"",
            gateways=tuple(
                GatewayAddress(gateway_id=gateway, name=name, vtep=vtep, shards=tuple(shards))
                for gateway, name, vtep, shards in gateways
            ),
        )


async def read_host_ids(engine: AsyncEngine) -> list[UUID]:
    """Every registered host."""
    async with engine.connect() as connection:
        return list((await connection.execute(text("SELECT id FROM hosts"))).scalars())


def _split(row: Row[Any]) -> tuple[UUID, dict[str, Any]]:
    """The owner of a value, and the value's fields by name."""
    fields = row._asdict()
    return fields.pop("owner"), fields


@asynccontextmanager
async def snapshot(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction whose statements all see the database at one moment."""
    repeatable = engine.execution_options(isolation_level="REPEATABLE READ")
    async with repeatable.connect() as connection, connection.begin():
        yield connection
