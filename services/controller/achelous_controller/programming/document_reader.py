"""Reads what the documents of hosts and of the fleet are made of, each from one snapshot."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from achelous_controller.programming.documents import fleet_document, host_documents
from achelous_controller.programming.sql import ip16, mac6, prefix_len
from achelous_shared.messages import FleetDocument, HostDocument

_HOSTS: Final = text("""
    SELECT id, revision FROM hosts WHERE id = ANY(CAST(:hosts AS uuid[])) ORDER BY id
""")

_PORTS: Final = text(f"""
    SELECT v.host_id, v.id AS vnic_id, v.instance_id, v.vni, v.revision,
        {mac6("v.mac")} AS mac, {ip16("v.ip")} AS ip,
        {prefix_len("s.cidr")} AS prefix_len, {ip16("s.gateway_ip")} AS router,
        ARRAY(
            SELECT security_group_id FROM vnic_security_groups AS g
            WHERE g.vnic_id = v.id ORDER BY 1
        ) AS security_groups
    FROM vnics AS v JOIN subnets AS s ON s.id = v.subnet_id
    WHERE v.host_id = ANY(CAST(:hosts AS uuid[])) AND NOT v.withdrawn
    ORDER BY v.host_id, v.id
""")  # noqa: S608  constants of this module

_RULES: Final = text(f"""
    SELECT security_group_id, egress, protocol, port_min, port_max,
        {ip16("remote")} AS remote, {prefix_len("remote")} AS remote_len
    FROM security_group_rules
    WHERE security_group_id = ANY(CAST(:groups AS uuid[]))
    ORDER BY security_group_id, id
""")  # noqa: S608  constants of this module


async def read_host_documents(engine: AsyncEngine, hosts: Sequence[UUID]) -> list[HostDocument]:
    """The documents of these hosts as the database stands now; none for a host that is gone."""
    async with _snapshot(engine) as connection:
        rows = (await connection.execute(_HOSTS, {"hosts": hosts})).all()
        ports = (await connection.execute(_PORTS, {"hosts": hosts})).all()
        groups = list({group for port in ports for group in port.security_groups})
        rules = (await connection.execute(_RULES, {"groups": groups})).all()
    return host_documents(rows, ports, rules)


async def read_fleet_document(engine: AsyncEngine) -> FleetDocument:
    """The fleet's document as the database stands now."""
    async with _snapshot(engine) as connection:
        revision = await connection.execute(text("SELECT revision FROM fleet"))
        vteps = await connection.execute(
            text("SELECT string_agg(substr(inet_send(vtep), 5), '' ORDER BY id) FROM hosts")
        )
        gateways = await connection.execute(
            text("SELECT id, name, substr(inet_send(vtep), 5) AS vtep FROM gateways ORDER BY name")
        )
        return fleet_document(
            revision.scalar_one_or_none() or 0, vteps.scalar_one() or b"", gateways.all()
        )


async def read_host_ids(engine: AsyncEngine) -> list[UUID]:
    """Every registered host."""
    async with engine.connect() as connection:
        return list((await connection.execute(text("SELECT id FROM hosts"))).scalars())


@asynccontextmanager
async def _snapshot(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction whose statements all see the database at one moment."""
    repeatable = engine.execution_options(isolation_level="REPEATABLE READ")
    async with repeatable.connect() as connection, connection.begin():
        yield connection
