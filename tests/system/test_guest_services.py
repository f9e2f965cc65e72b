"""What a guest is told of its network, asked by udhcpc, dhcpcd, rdisc6 and the kernel itself."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from guest_clients import Clients
from platform_world import vswitch

from achelous_lab.platform import Instance, Lab, Size
from achelous_lab.waiting import wait_until
from achelous_shared.names import ROUTER_LINK_LOCAL

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
async def lab() -> AsyncIterator[Lab]:
    async with Lab(Size(hosts=1, gateways=1)) as lab:
        yield lab


async def web(lab: Lab) -> Instance:
    """An instance named web.1 in a subnet of both families."""
    tenant = await lab.tenant("told")
    subnet = await tenant.subnet(
        await tenant.vpc("vpc"),
        "10.0.0.0/24",
        cidr6="fd00:1::/64",
        dns_servers=["10.0.0.53", "fd00:1::53"],
        dhcp_lease_s=600,
    )
    return await lab.instance(tenant, subnet, "web.1", host=lab.hosts[0])


@pytest.fixture(scope="module")
async def instance(lab: Lab) -> Instance:
    return await web(lab)


@pytest.fixture
async def clients(instance: Instance, tmp_path: Path) -> Clients:
    """In its guest, which has no addresses now."""
    clients = Clients(instance.guest, tmp_path)
    await clients.forget_addresses()
    return clients


async def test_a_guest_in_the_lab_has_both_addresses(lab: Lab, instance: Instance) -> None:
    (vnic,) = instance.vnics
    (port,) = (await vswitch(lab, lab.hosts[0]))["ports"]

    assert (vnic["ip"], vnic["ip6"]) == ("10.0.0.2", "fd00:1::2")
    assert (port["ip"], port["ip6"]) == (vnic["ip"], vnic["ip6"])
    assert str(instance.guest.ip6) == "fd00:1::2"


async def test_udhcpc_gets_the_address_of_the_vnic(clients: Clients) -> None:
    told = await clients.udhcpc()

    wanted = {
        "event": "bound",
        "ip": "10.0.0.2",
        "mask": "24",
        "router": "10.0.0.1",
        "serverid": "10.0.0.1",
        "broadcast": "10.0.0.255",
        "dns": "10.0.0.53",
        "mtu": "1500",
        "lease": "600",
        "hostname": "web-1",
    }
    assert {name: told.get(name) for name in wanted} == wanted


async def test_dhcpcd_configures_ipv4(clients: Clients) -> None:
    told = await clients.dhcpcd(4)

    assert told["new_dhcp_lease_time"] == "600"
    assert told["new_domain_name_servers"] == "10.0.0.53"
    assert "inet 10.0.0.2/24 brd 10.0.0.255" in await clients.addresses()
    assert "default via 10.0.0.1 dev eth0" in await clients.routes(4)


async def test_dhcpcd_finds_its_router_and_configures_ipv6(clients: Clients) -> None:
    told = await clients.dhcpcd(6)

    assert told["new_dhcp6_name_servers"] == "fd00:1::53"
    assert "inet6 fd00:1::2/128" in await clients.addresses()
    routes = await clients.routes(6)
    assert f"default via {ROUTER_LINK_LOCAL} dev eth0" in routes
    assert "fd00:1::/64 dev eth0" in routes


async def test_rdisc6_hears_of_router_prefix_mtu_and_resolvers(clients: Clients) -> None:
    said = " ".join((await clients.rdisc6()).split())

    for part in (
        "Stateful address conf. : Yes",
        "Stateful other conf. : Yes",
        "Router lifetime : 65535",
        "Prefix : fd00:1::/64",
        "On-link : Yes",
        "Autonomous address conf.: No",
        "MTU : 1500 bytes",
        "Recursive DNS server : fd00:1::53",
        "Source link-layer address: 0E:AC:E1:00:00:01",
        f"from {ROUTER_LINK_LOCAL}",
    ):
        assert part in said


async def test_the_kernel_of_a_guest_finds_its_router(clients: Clients) -> None:
    await clients.solicit_as_kernel()

    async def found() -> bool:
        return f"default via {ROUTER_LINK_LOCAL} dev eth0 proto ra" in await clients.routes(6)

    await wait_until(found, "a default route by the router's advertisement", timeout=15)


async def test_guests_are_told_while_no_agent_runs_and_after_it_is_back(
    lab: Lab, clients: Clients
) -> None:
    agent = lab.hosts[0].agent
    await agent.kill9()

    assert (await clients.udhcpc())["ip"] == "10.0.0.2"
    assert "fd00:1::/64" in await clients.rdisc6()

    await agent.start()
    assert (await clients.udhcpc())["ip"] == "10.0.0.2"
    assert "fd00:1::/64" in await clients.rdisc6()


async def test_a_guest_hears_of_other_resolvers_as_it_renews(
    lab: Lab, instance: Instance, clients: Clients
) -> None:
    subnet = f"/subnets/{instance.vnics[0]['subnet_id']}"
    other: dict[str, Any] = {"dns_servers": ["10.0.0.54"], "dhcp_lease_s": 900}
    before = {name: (await lab.api.get(subnet))[name] for name in other}
    await lab.api.call("PATCH", subnet, other)

    async def told() -> bool:
        heard = await clients.udhcpc()
        return (heard["dns"], heard["lease"]) == ("10.0.0.54", "900")

    await wait_until(told, "the guest to be told of another resolver")
    await lab.api.call("PATCH", subnet, before)


async def test_a_guest_that_does_not_ask_is_told_of_its_router(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACHELOUS_ROUTER_ADVERT_S", "1")
    async with Lab(Size(hosts=1, gateways=1)) as lab:
        clients = Clients((await web(lab)).guest, tmp_path)
        await clients.listen_for_routers()

        async def found() -> bool:
            return f"default via {ROUTER_LINK_LOCAL} dev eth0 proto ra" in await clients.routes(6)

        await wait_until(found, "a default route by the router's advertisement", timeout=15)
