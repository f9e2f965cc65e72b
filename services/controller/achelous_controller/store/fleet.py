"""Hosts and gateways: the ends of the underlay."""

from collections.abc import Sequence
from ipaddress import IPv4Address
from uuid import UUID

from sqlalchemy import Table, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from achelous_controller.domain.errors import Conflict
from achelous_controller.domain.ids import new_id
from achelous_controller.domain.precondition import Precondition
from achelous_controller.store import objects
from achelous_controller.store.database import Record, fetch_one
from achelous_controller.store.listing import on_host
from achelous_controller.store.outbox import fleet_changed, hosts_changed
from achelous_controller.store.schema import gateways, hosts, instances
from achelous_controller.store.users import must_be_unused


async def create_host(
    connection: AsyncConnection, name: str, vtep: IPv4Address, capacity: int
) -> Record:
    """A host without vNICs; it gets its (empty) document at once."""
    host_id = new_id()
    await connection.execute(
        insert(hosts).values(id=host_id, name=name, vtep=vtep, capacity=capacity)
    )
    await hosts_changed(connection, [host_id])
    await fleet_changed(connection)
    await _must_be_free(connection, vtep, gateways)
    return await objects.one(connection, hosts, host_id, None)


async def change_host(
    connection: AsyncConnection,
    host_id: UUID,
    match: Precondition,
    name: str | None,
    capacity: int | None,
    draining: bool | None,
) -> Record:
    """Rename a host, give it another capacity, not below what it runs, or let it take no more."""
    host = await objects.locked(connection, hosts, host_id, None, match)
    if capacity is not None and capacity < host.vnic_count:
        raise Conflict.field(
            "capacity", capacity, f"the host has {host.vnic_count} vNICs: move or delete some first"
        )
    return await objects.change(
        connection,
        hosts,
        host_id,
        {
            "name": name or host.name,
            "capacity": capacity or host.capacity,
            "draining": host.draining if draining is None else draining,
        },
    )


async def remove_host(connection: AsyncConnection, host_id: UUID, match: Precondition) -> None:
    """Delete a host that runs nothing."""
    await objects.locked(connection, hosts, host_id, None, match)
    await must_be_unused(
        connection,
        "the host",
        "instance",
        instances,
        instances.c.name,
        on_host(host_id),
    )
    await objects.remove(connection, hosts, host_id)
    await fleet_changed(connection)


async def create_gateway(
    connection: AsyncConnection, name: str, vtep: IPv4Address, shards: Sequence[int]
) -> Record:
    """A gateway of the VPCs in these shards; it serves once it has read their routes."""
    values = {"id": new_id(), "name": name, "vtep": vtep, "shards": sorted(shards)}
    row = await fetch_one(connection, insert(gateways).values(values).returning(gateways))
    await fleet_changed(connection)
    await _must_be_free(connection, vtep, hosts)
    return row


async def rename_gateway(
    connection: AsyncConnection, gateway_id: UUID, match: Precondition, name: str | None
) -> Record:
    """Give a gateway another name, which the fleet document carries."""
    gateway = await objects.locked(connection, gateways, gateway_id, None, match)
    row = await objects.change(connection, gateways, gateway_id, {"name": name or gateway.name})
    await fleet_changed(connection)
    return row


async def remove_gateway(
    connection: AsyncConnection, gateway_id: UUID, match: Precondition
) -> None:
    """Delete a gateway; the vSwitches share its load among the others."""
    await objects.locked(connection, gateways, gateway_id, None, match)
    await objects.remove(connection, gateways, gateway_id)
    await fleet_changed(connection)


async def _must_be_free(connection: AsyncConnection, vtep: IPv4Address, others: Table) -> None:
    """No host has a gateway's address. Called with the fleet locked, so that none can come."""
    query = select(others.c.name).where(others.c.vtep == vtep)
    name = (await connection.execute(query)).scalar_one_or_none()
    if name is not None:
        kind = others.name.removesuffix("s")
        raise Conflict.field("vtep", str(vtep), f"{vtep} is the address of the {kind} {name}")
