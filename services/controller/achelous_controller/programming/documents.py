"""The documents of hosts and of the fleet, each read from one snapshot of the database.

On a connection of the leader's own, within the transaction of `outbox.begin`.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from achelous_controller.programming.sql import ip16, mac6, optional, prefix_len
from achelous_shared import names
from achelous_shared.messages import (
    FleetDocument,
    GatewayAddress,
    Port,
    SecurityRule,
)

PORTS: Final = f"""
    WITH chosen AS MATERIALIZED (
        SELECT * FROM vnics AS v WHERE {{which}} AND NOT v.withdrawn
    ), nets AS MATERIALIZED (
        SELECT s.id, {prefix_len("s.cidr")} AS prefix_len, {ip16("s.gateway_ip")} AS router,
            masklen(s.cidr6) AS prefix_len6,
            {optional(ip16("s.gateway_ip6"), "s.gateway_ip6", "''::bytea")} AS router6,
            ARRAY(
                SELECT {ip16("server")}
                FROM unnest(s.dns_servers) WITH ORDINALITY AS d (server, place) ORDER BY place
            ) AS dns,
            s.dhcp_lease_s, p.programming_model = 'preprogrammed' AS preprogrammed
        FROM subnets AS s JOIN vpcs AS p ON p.id = s.vpc_id
        WHERE s.id IN (SELECT subnet_id FROM chosen)
    )
    SELECT v.host_id, v.id, v.instance_id, v.vni, v.revision, v.identity,
        {mac6("v.mac")} AS mac, {ip16("v.ip")} AS ip,
        {optional(ip16("v.ip6"), "v.ip6", "''::bytea")} AS ip6,
        translate(i.name, '._', '--') AS hostname,
        ARRAY(
            SELECT g.security_group_id FROM vnic_security_groups AS g WHERE g.vnic_id = v.id
            ORDER BY g.security_group_id
        ) AS groups,
        n.prefix_len, n.router, n.prefix_len6, n.router6, n.dns, n.dhcp_lease_s, n.preprogrammed
    FROM chosen AS v JOIN nets AS n ON n.id = v.subnet_id
    CROSS JOIN LATERAL (SELECT name FROM instances WHERE id = v.instance_id LIMIT 1) AS i
    ORDER BY v.id
"""  # noqa: S608  constants of this module; LATERAL: one by one, never the whole table
"""For `ports_of`. ``which``: a condition on ``vnics AS v``."""
PORT_COLUMNS: Final = 18
OF_HOSTS: Final = PORTS.format(which="v.host_id = ANY ($1::uuid[])")
"""All ports of hosts."""
NAMED: Final = PORTS.format(which="v.id = ANY ($1::uuid[])")
"""The ports of vNICs."""

_RULES: Final = f"""
    SELECT security_group_id AS owner, id AS rule_id, egress, protocol, port_min, port_max,
        {ip16("COALESCE(remote, '::/0'::cidr)")} AS remote,
        {prefix_len("COALESCE(remote, '::/0'::cidr)")} AS remote_len,
        COALESCE(family(remote) = 6, false) AS v6_only,
        remote_group_id AS remote_group, allow, priority
    FROM security_group_rules
    WHERE security_group_id = ANY ($1::uuid[])
    ORDER BY id
"""  # noqa: S608  constants of this module

_IDENTITIES: Final = """
    SELECT p.vni, i.number, i.groups
    FROM identities AS i JOIN vpcs AS p ON p.id = i.vpc_id
    WHERE i.groups && $1::uuid[] AND i.vpc_id IN (
        SELECT vpc_id FROM security_groups WHERE id = ANY ($1::uuid[])
    )
    ORDER BY p.vni, i.number
"""

Identity = tuple[int, int, Sequence[UUID]]
"""VNI, number, and the security groups of those who have it."""


@dataclass(slots=True)
class ReadPorts:
    """Host -> its ports in order of vNIC, and those of their VNIs that are preprogrammed."""

    of: dict[UUID, list[Port]] = field(default_factory=lambda: defaultdict(list))
    preprogrammed: set[int] = field(default_factory=set)


async def read_ports(connection: Any, query: str, ids: Sequence[UUID]) -> ReadPorts:
    """The ports of these hosts (`OF_HOSTS`) or vNICs (`NAMED`), wherever they are now."""
    return ports_of(await connection.fetch(query, ids) if ids else ())


def ports_of(rows: Iterable[Sequence[Any]]) -> ReadPorts:
    """What `PORTS` found."""
    found = ReadPorts()
    same: dict[tuple[UUID, ...], tuple[UUID, ...]] = {}  # most ports are in the same groups
    for (
        host, vnic_id, instance_id, vni, revision, identity, mac, ip, ip6, hostname, groups,
        length, router, length6, router6, dns, lease_s, preprogrammed,
    ) in rows:  # fmt: skip
        of_groups = tuple(groups)
        found.of[host].append(
            Port(
                vnic_id=vnic_id,
                instance_id=instance_id,
                vni=vni,
                mac=mac,
                ip=ip,
                prefix_len=length,
                router=router,
                mtu=names.GUEST_MTU,
                security_groups=same.setdefault(of_groups, of_groups),
                revision=revision,
                ip6=ip6,
                prefix_len6=length6 if ip6 else 0,
                router6=router6 if ip6 else b"",
                dns=tuple(dns),
                lease_s=lease_s,
                hostname=hostname,
                identity=identity,
            )
        )
        if preprogrammed:
            found.preprogrammed.add(vni)
    return found


async def read_rules(
    connection: Any, groups: Collection[UUID]
) -> tuple[dict[UUID, list[SecurityRule]], list[Identity]]:
    """The rules of these groups, and the identities of who is in a group that one of them names."""
    rules: dict[UUID, list[SecurityRule]] = defaultdict(list)
    for row in await connection.fetch(_RULES, list(groups)):
        fields = dict(row)
        rules[fields.pop("owner")].append(SecurityRule(**fields))
    remotes = {rule.remote_group for some in rules.values() for rule in some} - {None}
    found = await connection.fetch(_IDENTITIES, list(remotes)) if remotes else ()
    return rules, [(vni, number, of) for vni, number, of in found]


def rules_of(
    groups: Collection[UUID],
    rules: Mapping[UUID, Sequence[SecurityRule]],
    identities: Iterable[Identity],
) -> tuple[dict[UUID, tuple[SecurityRule, ...]], dict[int, dict[int, tuple[UUID, ...]]]]:
    """What a host is told of these security groups: the rules of each, of those too that have
    none, and the identities of who is in a group that one of these rules names."""
    found = {group: tuple(rules.get(group, ())) for group in sorted(groups)}
    named = {rule.remote_group for some in found.values() for rule in some} - {None}
    members: dict[int, dict[int, tuple[UUID, ...]]] = defaultdict(dict)
    for vni, number, of in identities if named else ():
        if inside := tuple(group for group in of if group in named):
            members[vni][number] = inside
    return found, dict(members)


async def read_fleet_document(connection: Any) -> FleetDocument:
    """The fleet's document as the database stands now; gateways in order of name."""
    gateways = await connection.fetch(
        "SELECT id, name, vtep - '0.0.0.0'::inet, shards FROM gateways ORDER BY name"
    )
    return FleetDocument(
        revision=await connection.fetchval("SELECT revision FROM fleet"),
        host_vteps=await connection.fetchval(
            "SELECT string_agg(substr(inet_send(vtep), 5), '' ORDER BY id) FROM hosts"
        )
        or b"",
        gateways=tuple(
            GatewayAddress(gateway_id=gateway, name=name, vtep=vtep, shards=tuple(shards))
            for gateway, name, vtep, shards in gateways
        ),
    )


async def read_host_ids(engine: AsyncEngine) -> list[UUID]:
    """Every registered host."""
    async with engine.connect() as connection:
        return list((await connection.execute(text("SELECT id FROM hosts"))).scalars())
