"""What tenants' traffic meets, on a whole platform: real hosts, gateways, guests."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from platform_world import (
    Net,
    in_both_models,
    known,
    learned,
    metric,
    port_of,
    relayed,
    vswitch,
    wait_for_equal_tables,
)

from achelous_lab.api import Rule
from achelous_lab.hypervisor import Hypervisor
from achelous_lab.netns.connection import ConnectionTester, Proto
from achelous_lab.platform import Instance, Lab, Machine, Size, vnic_body
from achelous_lab.process import Process
from achelous_lab.waiting import wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
async def lab() -> AsyncIterator[Lab]:
    async with Lab(Size(hosts=3, gateways=2)) as lab:
        yield lab


@pytest.mark.parametrize("hosts", [(0, 1), (0, 0)], ids=["across hosts", "on one host"])
async def test_ping_curl_and_iperf_get_through(net: Net, hosts: tuple[int, int]) -> None:
    a, b = await net.run(*hosts)
    ping = await a.guest.ping(b.guest, count=5)
    async with b.guest.serve_http() as url:
        page = await a.guest.curl(f"{url}/bytes/100000")
    tcp = await a.guest.iperf3(b.guest, 1)
    udp = await a.guest.iperf3(b.guest, 1, udp=True, bitrate="10M", length=1000)

    assert ping.lost == 0
    assert (page.status, len(page.body)) == (200, 100_000)
    assert tcp.bits_per_second > 0
    assert udp.packets > 0
    assert udp.lost == 0


async def test_the_first_packets_are_relayed_and_the_next_ones_go_direct(net: Net) -> None:
    a, b = await net.run(0, 1)
    before = await relayed(net.lab)
    assert (await a.guest.ping(b.guest, count=2)).received == 2
    assert await relayed(net.lab) > before
    await learned(net.lab, a, b)

    settled = await relayed(net.lab)
    assert (await a.guest.ping(b.guest, count=20, interval=0.01)).lost == 0

    assert await relayed(net.lab) == settled
    entry = await known(net.lab, a.host, b)
    assert entry is not None
    assert entry["vtep"] == str(b.host.node.ip)
    assert entry["ip"] == str(b.guest.ip)
    assert entry["generation"] % 2 == 1
    assert entry["age_ms"] < 5000
    port = await port_of(net.lab, a)
    assert port["direct"] >= 20
    assert port["relayed"] >= 1


@in_both_models
async def test_vpcs_with_the_same_addresses_are_apart(lab: Lab, net: Net) -> None:
    other = await Net.create(lab)
    a, b = await net.run(0, 1)
    theirs, same_as_b = await other.run(0, 1)
    only_here = (await net.run(1))[0]
    assert b.guest.ip == same_as_b.guest.ip

    async with b.guest.serve_http() as url, same_as_b.guest.serve_http():
        mine, their = await a.guest.curl(url), await theirs.guest.curl(url)

    assert mine.body.decode().strip() == b.guest.name
    assert their.body.decode().strip() == same_as_b.guest.name
    assert (await a.guest.ping(only_here.guest, count=2)).lost == 0
    assert (await theirs.guest.ping(only_here.guest, count=2, wait=0.3)).received == 0


@in_both_models
async def test_subnets_of_a_vpc_reach_each_other(net: Net) -> None:
    second = await net.tenant.subnet(net.vpc, "10.0.7.0/28")
    (a,) = await net.run(0)
    (b,) = await net.run(1, subnet=second)

    assert (await a.guest.ping(b.guest, count=3)).lost == 0


async def test_a_rule_admits_and_its_end_stops_running_flows_within_a_second(net: Net) -> None:
    closed = await net.tenant.security_group(net.vpc, "closed")
    (a,) = await net.run(0)
    (b,) = await net.run(1, groups=[closed])
    assert (await a.guest.ping(b.guest, count=2, wait=0.3)).received == 0

    rule = await net.tenant.add_rule(closed, Rule(protocol="icmp"))

    async with a.guest.pinger(b.guest) as pinger:
        await pinger.wait_for_replies(20)
        ended = time.monotonic()
        await net.tenant.api.delete(f"/security-groups/{closed['id']}/rules/{rule['id']}")
        assert await pinger.last_reply() - ended < 1.0
    async with ConnectionTester(a.guest, b.guest, Proto.TCP, 80) as tester:
        assert not await tester.check()
    drops = (await port_of(net.lab, b))["drops"]
    assert drops["acl_ingress"] > 0


@in_both_models
async def test_an_address_that_moves_to_a_new_instance_is_reached_there(net: Net) -> None:
    a, b = await net.run(0, 1)
    assert (await a.guest.ping(b.guest, count=3)).lost == 0
    await net.acquainted(a, b)
    await net.remove(b)

    (heir,) = await net.run(0, ip=str(b.guest.ip))

    async def answers() -> bool:
        return (await a.guest.ping(heir.guest, count=1, wait=0.2)).received == 1

    await wait_until(answers, "the new instance to answer", timeout=3)


@in_both_models
async def test_an_instance_that_is_moved_is_reached_on_its_new_host(net: Net) -> None:
    a, b, neighbour = await net.run(0, 1, 1)
    for other in (a, neighbour):
        assert (await other.guest.ping(b.guest, count=3)).lost == 0
    await net.acquainted(a, b)

    b = await net.move(b, 2)

    for other in (a, neighbour):

        async def answers(other: Instance = other) -> bool:
            return (await other.guest.ping(b.guest, count=1, wait=0.2)).received == 1

        await wait_until(answers, "the moved instance to answer", timeout=5)
        assert (await b.guest.ping(other.guest, count=3)).lost == 0
    await net.acquainted(a, b)
    await net.acquainted(neighbour, b)
    if net.vpc["programming_model"] == "alm":
        entry = await known(net.lab, a.host, b)
        assert entry is not None
        assert entry["vtep"] == str(net.lab.hosts[2].node.ip)
    await wait_for_equal_tables(net.lab)


async def test_the_followed_route_of_a_moved_instance_needs_no_packet(net: Net) -> None:
    a, b = await net.run(0, 1)
    assert (await a.guest.ping(b.guest, count=3)).lost == 0
    await learned(net.lab, a, b)

    b = await net.move(b, 2)

    async def follows() -> bool:
        entry = await known(net.lab, a.host, b)
        return entry is not None and entry["vtep"] == str(b.host.node.ip)

    await wait_until(follows, "the entry that held the old next hop to have the new one", timeout=5)


@in_both_models
async def test_all_kinds_and_several_vnics(net: Net) -> None:
    second = await net.tenant.subnet(net.vpc, "10.0.9.0/24")
    (vm,) = await net.run(0, more_vnics=[vnic_body(second, groups=[net.open])])
    (metal,) = await net.run(1, kind="bare_metal")
    (container,) = await net.run(0, kind="container")

    assert len(vm.vnics) == len(vm.guest.nics) == 2
    assert (await vm.guest.ping(metal.guest, count=2)).lost == 0
    assert (await container.guest.ping(metal.guest, count=2)).lost == 0
    shown = await vswitch(net.lab, vm.host)
    states = {port["vnic_id"]: port["state"] for port in shown["ports"]}
    assert {states[vnic["id"]] for vnic in vm.vnics} == {"active"}


async def test_every_service_says_how_it_is(lab: Lab) -> None:
    services: list[Process | Machine] = [*lab.controllers, *lab.gateways, *lab.hosts]
    for service in services:
        for path in ("healthz", "readyz"):
            assert (await lab.ask(service, path)).status_code == 200, (service.name, path)
    assert await metric(lab, lab.controllers[0], "programming_leader") == 1


async def test_a_hypervisor_runs_what_is_created_through_the_api(lab: Lab, net: Net) -> None:
    task = asyncio.create_task(Hypervisor(lab).run())
    try:
        vnic = vnic_body(net.subnet, groups=[net.open])
        body = {"name": "auto", "kind": "container", "vnics": [vnic]}
        made = await net.tenant.api.post("/instances", body)
        before = (await lab.api.wait_active(made["id"]))["host_id"]
        elsewhere = next(str(host.id) for host in lab.hosts if str(host.id) != before)
        await lab.api.patch(f"/instances/{made['id']}", {"host_id": elsewhere})
        await lab.api.wait_active(made["id"])
        await lab.api.delete(f"/instances/{made['id']}")
        await lab.api.wait_gone(f"/instances/{made['id']}")
        await wait_until(
            lambda: all(str(one.id) != made["id"] for one in lab.instances), "the guest to go"
        )
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.alone
async def test_an_agents_crash_loses_no_packet_of_a_running_iperf(lab: Lab, net: Net) -> None:
    a, b = await net.run(0, 1)
    await a.guest.ping(b.guest, count=2)
    await learned(lab, a, b)
    sending = asyncio.create_task(a.guest.iperf3(b.guest, 4, udp=True, bitrate="20M", length=1000))

    async def flowing() -> bool:
        return bool((await port_of(lab, a))["tx_packets"] > 500)

    await wait_until(flowing, "iperf to send")
    await a.host.agent.kill9()
    await a.host.agent.start()
    assert not sending.done()
    result = await sending

    assert result.packets > 5000
    assert result.lost == 0
