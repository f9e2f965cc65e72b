"""The documents of hosts and of the fleet, each made from one snapshot of the database."""

from collections import defaultdict
from collections.abc import AsyncIterator, Container, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
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

_HOSTS: Final = text("""
    SELECT id, revision FROM hosts WHERE id = ANY(CAST(:hosts AS uuid[])) ORDER BY id
""")

_PORTS: Final = text(f"""
    SELECT v.host_id AS owner, v.id AS vnic_id, v.instance_id, v.vni, v.revision, v.identity,
        {mac6("v.mac")} AS mac, {ip16("v.ip")} AS ip,
        {prefix_len("s.cidr")} AS prefix_len, {ip16("s.gateway_ip")} AS router,
        {optional(ip16("v.ip6"), "v.ip6", "''::bytea")} AS ip6,
        {optional("masklen(s.cidr6)", "v.ip6", "0")} AS prefix_len6,
        {optional(ip16("s.gateway_ip6"), "v.ip6", "''::bytea")} AS router6,
        ARRAY(
            SELECT {ip16("server")} FROM unnest(s.dns_servers) WITH ORDINALITY AS d (server, place)
            ORDER BY place
        ) AS dns,
        s.dhcp_lease_s AS lease_s, translate(i.name, '._', '--') AS hostname,
        ARRAY(
            SELECT security_group_id FROM vnic_security_groups AS g
            WHERE g.vnic_id = v.id ORDER BY 1
        ) AS security_groups,
        p.programming_model = 'preprogrammed' AS preprogrammed
    FROM vnics AS v
    JOIN vpcs AS p ON p.id = v.vpc_id
    JOIN subnets AS s ON s.id = v.subnet_id
    JOIN instances AS i ON i.id = v.instance_id
    WHERE v.host_id = ANY(CAST(:hosts AS uuid[])) AND NOT v.withdrawn
    ORDER BY v.id
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

Identity = tuple[int, int, Sequence[UUID]]
"""VNI, number, and the security groups of those who have it."""


async def read_host_documents(engine: AsyncEngine, hosts: Sequence[UUID]) -> list[HostDocument]:
    """The documents of these hosts as the database stands now; none for a host that is gone."""
    ports: dict[UUID, list[Port]] = defaultdict(list)
    rules: dict[UUID, list[SecurityRule]] = defaultdict(list)
    preprogrammed: set[int] = set()
    async with _snapshot(engine) as connection:
        revisions = (await connection.execute(_HOSTS, {"hosts": hosts})).all()
        for row in await connection.execute(_PORTS, {"hosts": hosts}):
            owner, fields = _split(row)
            for name in ("security_groups", "dns"):
                fields[name] = tuple(fields[name])
            if fields.pop("preprogrammed"):
                preprogrammed.add(fields["vni"])
            ports[owner].append(Port(mtu=names.GUEST_MTU, **fields))
        named = {
            group for some in ports.values() for port in some for group in port.security_groups
        }
        for row in await connection.execute(_RULES, {"groups": list(named)}):
            owner, fields = _split(row)
            rules[owner].append(SecurityRule(**fields))
        remotes = {rule.remote_group for some in rules.values() for rule in some} - {None}
        identities: list[Identity] = [
            (vni, number, groups)
            for vni, number, groups in await connection.execute(
                _IDENTITIES, {"named": list(remotes)}
            )
        ]
    return [
        host_document(host, revision, ports[host], rules, identities, preprogrammed)
        for host, revision in revisions
    ]


def host_document(
    host_id: UUID,
    revision: int,
    ports: Iterable[Port],
    rules: Mapping[UUID, Sequence[SecurityRule]],
    identities: Iterable[Identity] = (),
    preprogrammed: Container[int] = (),
) -> HostDocument:
    """A host's document: its ports, the security groups that they name, without rules too, the
    identities of who is in a group that one of these rules names, and which of its VPCs are among
    the ``preprogrammed``."""
    ports = tuple(ports)
    groups = sorted({group for port in ports for group in port.security_groups})
    found = {group: tuple(rules.get(group, ())) for group in groups}
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
        preprogrammed=tuple(sorted({port.vni for port in ports if port.vni in preprogrammed})),
    )


async def read_fleet_document(engine: AsyncEngine) -> FleetDocument:
    """The fleet's document as the database stands now; gateways in order of name."""
    async with _snapshot(engine) as connection:
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
async def _snapshot(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction whose statements all see the database at one moment."""
    repeatable = engine.execution_options(isolation_level="REPEATABLE READ")
    async with repeatable.connect() as connection, connection.begin():
        yield connection
