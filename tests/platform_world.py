"""For tests of the whole platform: a tenant's network, what operators are shown, equal tables."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Self

import numpy as np
import pytest
from relay_maps import relay_routes
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from achelous_lab.api import Object, Rule
from achelous_lab.platform import Instance, Lab, Machine, Tenant
from achelous_lab.process import Process
from achelous_lab.waiting import wait_until
from achelous_shared import rsp, subjects
from achelous_shared.bpf import object_path
from achelous_shared.bus import Bus
from achelous_shared.bus_roles import Role
from achelous_shared.routes import ip_bytes, ip_of, mac_of

Route = tuple[str, str]
"""VTEP and MAC of a vNIC."""
Routes = dict[tuple[int, str], Route]
"""By VNI and address."""

in_both_models = pytest.mark.parametrize("net", ["alm", "preprogrammed"], indirect=True)
"""For tests that a VPC passes however its hosts get their routes."""

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Net:
    """A tenant's VPC with one subnet, and a group that admits everything."""

    lab: Lab
    tenant: Tenant
    vpc: Object
    subnet: Object
    open: Object

    @classmethod
    async def create(cls, lab: Lab, cidr: str = "10.0.0.0/24", **vpc_more: object) -> Self:
        """Of a tenant of its own; ``vpc_more``: see `Tenant.vpc`."""
        tenant = await lab.tenant(f"t{next(_numbers)}")
        vpc = await tenant.vpc("vpc", **vpc_more)
        subnet = await tenant.subnet(vpc, cidr)
        return cls(lab, tenant, vpc, subnet, await tenant.security_group(vpc, "open", Rule()))

    async def run(
        self, *hosts: int, groups: Sequence[Object] | None = None, **more: Any
    ) -> list[Instance]:
        """One ACTIVE instance on each of these hosts, by number; see `Lab.instance`."""
        made = [
            await self.lab.instance(
                self.tenant,
                more.get("subnet", self.subnet),
                f"i{next(_numbers)}",
                host=self.lab.hosts[host],
                groups=[self.open] if groups is None else groups,
                wait=False,
                **{name: value for name, value in more.items() if name != "subnet"},
            )
            for host in hosts
        ]
        for instance in made:
            await self.lab.api.wait_active(str(instance.id))
        return made

    async def acquainted(self, a: Instance, b: Instance) -> None:
        """Wait until the hosts of both, who have talked, send to each other without a gateway."""
        if self.vpc["programming_model"] == "alm":  # else ACTIVE has said so
            await learned(self.lab, a, b)

    async def move(self, instance: Instance, host: int) -> Instance:
        """Move it to a host, by number, where a guest of the same addresses starts; ACTIVE."""
        to = {"host_id": str(self.lab.hosts[host].id)}
        placed = await self.lab.api.patch(f"/instances/{instance.id}", to)
        await self.lab.unplug(instance)
        moved = await self.lab.plug_in(placed)
        await self.lab.api.wait_active(str(instance.id))
        return moved

    async def remove(self, instance: Instance) -> None:
        """Delete it, wait until it is gone, and take its guest away."""
        await self.lab.api.delete(f"/instances/{instance.id}")
        await self.lab.api.wait_gone(f"/instances/{instance.id}")
        await self.lab.unplug(instance)


# ---- what operators are shown --------------------------------------------------------------------


async def vswitch(lab: Lab, host: Machine) -> Object:
    """The tables of a host's vSwitch, through the API."""
    return await lab.api.get(f"/hosts/{host.id}/vswitch")


async def tables(lab: Lab, gateway: Machine) -> Object:
    """The tables of a gateway, through the API."""
    return await lab.api.get(f"/gateways/{gateway.id}/tables")


async def relayed(lab: Lab) -> int:
    """Packets that all gateways together have relayed so far."""
    shown = [await tables(lab, gateway) for gateway in lab.gateways]
    return sum(one["relayed_packets"] for one in shown)


async def known(lab: Lab, host: Machine, instance: Instance) -> Object | None:
    """The host's FC entry for an instance's first vNIC, if it has one."""
    shown, mac = await vswitch(lab, host), instance.vnics[0]["mac"]
    return next((entry for entry in shown["fc"] if entry["mac"] == mac), None)


async def learned(lab: Lab, a: Instance, b: Instance) -> None:
    """Wait until the hosts of both know where the other is."""

    async def both_know() -> bool:
        ends = (a.host, b), (b.host, a)
        return all([await known(lab, host, other) for host, other in ends])

    await wait_until(both_know, "both hosts to learn each other's routes")


async def port_of(lab: Lab, instance: Instance, vnic: int = 0) -> Object:
    """The port of one of its vNICs, as its host shows it."""
    shown = await vswitch(lab, instance.host)
    wanted = instance.vnics[vnic]["id"]
    return next(port for port in shown["ports"] if port["vnic_id"] == wanted)


async def metric(lab: Lab, service: Process | Machine, name: str, label: str = "") -> float:
    """The sum of a service's samples of this metric whose labels contain `label`."""
    lines = (await lab.ask(service, "metrics")).text.splitlines()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return sum(
        float(value) for key, _, value in samples if key.partition("{")[0] == name and label in key
    )


async def leader(lab: Lab) -> Process:
    """The controller that leads, once one does."""
    found: list[Process] = []

    async def leads() -> bool:
        found[:] = [c for c in lab.controllers if await metric(lab, c, "programming_leader")]
        return len(found) == 1

    await wait_until(leads, "one controller to lead")
    return found[0]


# ---- the routes, wherever they are kept ----------------------------------------------------------


async def wait_for_equal_tables(lab: Lab, timeout: float = 20.0) -> None:
    """Wait until both tables of every gateway, and the ports of every host, are the database's."""
    differences: list[str] = []

    async def equal() -> bool:
        differences[:] = await table_differences(lab)
        return not differences

    await wait_until(equal, lambda: f"equal tables: {'; '.join(differences)}", timeout=timeout)


async def table_differences(lab: Lab) -> list[str]:
    """How gateways and hosts differ from the database, in words; empty if they do not."""
    wanted = await database_routes(lab)
    held = {}
    # gateways answer into the inboxes of vSwitches only
    async with Bus.connect(lab.nats_url(Role.VSWITCH), role=Role.VSWITCH, name="test") as bus:
        for gateway in lab.gateways:
            held[f"kernel of {gateway.name}"] = await asyncio.to_thread(kernel_routes, lab, gateway)
            held[f"RSP of {gateway.name}"] = await rsp_routes(bus, gateway, wanted)
    found = [
        f"{who}: lacks or has wrong {sorted(wanted.items() - routes.items())},"
        f" has {sorted(routes.items() - wanted.items())}"
        for who, routes in held.items()
        if routes != wanted
    ]
    for host in lab.hosts:
        ports = await host_ports(lab, host)
        here = {key: route for key, route in wanted.items() if route[0] == str(host.node.ip)}
        if ports != here:
            found.append(f"ports of {host.name}: {sorted(ports)}, to be {sorted(here)}")
    return found


async def database_routes(lab: Lab) -> Routes:
    """What every gateway shall hold."""
    engine = create_async_engine(lab.dsn(), poolclass=NullPool)
    query = text("""
        SELECT vni, host(ip) AS ip, to_hex(mac) AS mac, host(vtep) AS vtep
        FROM vnics JOIN hosts ON hosts.id = vnics.host_id
        WHERE NOT withdrawn
    """)
    async with engine.connect() as connection:
        rows = (await connection.execute(query)).all()
    return {(row.vni, row.ip): (row.vtep, mac_of(bytes.fromhex(row.mac.zfill(12)))) for row in rows}


def kernel_routes(lab: Lab, gateway: Machine) -> Routes:
    """What the gateway's packet path relays by: its pinned maps."""
    pins = lab.run_dir.path / "bpffs" / gateway.name / "maps"
    keys, values = relay_routes(object_path("gateway"), pins, lab.route_capacity)
    return {
        (int(key["vni"]), str(ip_of(key["ip"].tobytes()))): (
            str(IPv4Address(int(value["vtep"]))),
            mac_of(value["mac"].tobytes()),
        )
        for key, value in zip(keys, values, strict=True)
    }


async def rsp_routes(bus: Bus, gateway: Machine, wanted: Routes) -> Routes:
    """What the gateway tells vSwitches that ask for these addresses."""
    keys = [np.frombuffer(ip_bytes(ip), np.uint8) for _, ip in wanted]
    asked = rsp.requests([vni for vni, _ in wanted], np.array(keys).reshape(-1, 16))
    request = rsp.encode(rsp.MessageType.REQUEST, 1, asked)
    reply = await bus.request(subjects.rsp(gateway.id), request, timeout=5)
    return {
        (int(entry["vni"]), str(ip_of(entry["key"].tobytes()))): (
            str(ip_of(entry["next_hop"].tobytes())),
            mac_of(entry["mac"].tobytes()),
        )
        for entry in rsp.decode(reply, rsp.MessageType.REPLY).entries
        if entry["type"] == rsp.ReplyType.ROUTE
    }


async def host_ports(lab: Lab, host: Machine) -> Routes:
    """The vNICs that run on a host."""
    shown = await vswitch(lab, host)
    return {
        (port["vni"], port["ip"]): (str(host.node.ip), port["mac"])
        for port in shown["ports"]
        if port["state"] == "active"
    }
