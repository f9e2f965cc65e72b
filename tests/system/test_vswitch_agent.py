"""The agent on real hosts: ports, learning, gateways, restarts, and bad input."""

from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from uuid import UUID

import msgspec
import pytest
from vswitch_world import CLOSED, OPEN, Host, Vnic, World, make_world, rule

from achelous_lab.netns.connection import ConnectionTester, Proto
from achelous_lab.netns.network import Network
from achelous_lab.rundir import RunDir
from achelous_lab.waiting import wait_until
from achelous_shared import messages, subjects
from achelous_shared.messages import VswitchShow

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    """Two hosts, two gateways; each test brings its own vNICs."""
    with RunDir.create() as run_dir:
        async with Network(run_dir) as network, make_world(run_dir, network, 2, 2) as world:
            yield world


async def remote_pair(world: World) -> tuple[Vnic, Vnic]:
    """vNICs on two hosts whose routes the gateways know."""
    here, there = world.hosts
    pair = await here.vnic(), await there.vnic()
    for vnic, host in zip(pair, world.hosts, strict=True):
        await host.run(vnic)
        world.set_route(vnic, host)
    return pair


def entry_for(vnic: Vnic, shown: VswitchShow) -> messages.FcView | None:
    address = str(vnic.guest.ip)
    return next((entry for entry in shown.fc if entry.ip == address), None)


async def learned(host: Host, vnic: Vnic) -> messages.FcView:
    """Wait until the host knows where a vNIC is."""
    await host.shows(lambda shown: entry_for(vnic, shown) is not None)
    entry = entry_for(vnic, await host.show())
    assert entry is not None
    return entry


# ---- ports -------------------------------------------------------------------------------------


async def test_a_vnic_waits_for_its_device_and_runs_when_that_appears(world: World) -> None:
    host = world.hosts[0]
    vnic = await host.vnic()
    host.ports[vnic.vnic_id] = vnic.port
    await host.publish()
    report = await host.reported(lambda report: report.revision == host.revision)
    assert report.waiting == (vnic.vnic_id,)
    await host.plug(vnic)
    await host.applied()
    assert host.view_of(vnic, await host.show()).state == "active"


async def test_guests_on_one_host_reach_each_other_without_a_gateway(world: World) -> None:
    host = world.hosts[0]
    a, b = await host.vnic(), await host.vnic()
    await host.run(a, b)
    assert (await a.guest.ping(b.guest, count=5)).received == 5
    view = host.view_of(a, await host.show())
    assert (view.local, view.relayed, view.drops) == (view.tx_packets, 0, {})


async def test_a_device_that_comes_back_is_bound_again(world: World) -> None:
    host = world.hosts[0]
    a, b = await host.vnic(), await host.vnic()
    await host.run(a, b)
    await b.cable.unplug(host.node.namespace)
    await host.reported(lambda report: report.waiting == (b.vnic_id,))
    await host.plug(b)
    await host.applied()
    assert (await a.guest.ping(b.guest, count=5)).received == 5


async def test_a_withdrawn_vnic_reaches_nothing_and_is_counted_as_dropping(world: World) -> None:
    host = world.hosts[0]
    a, b = await host.vnic(), await host.vnic()
    await host.run(a, b)
    dropped = (await host.show()).drops.get("port_not_ready", 0)
    await host.withdraw(b)
    async with ConnectionTester(a.guest, b.guest, Proto.UDP, 7000) as udp:
        assert not await udp.check()
    assert (await b.guest.ping(a.guest, count=1, wait=0.2)).received == 0
    assert (await host.show()).drops["port_not_ready"] > dropped
    assert b.vnic_id not in {port.vnic_id for port in (await host.show()).ports}


async def test_changed_rules_block_a_running_flow_and_admit_it_again(world: World) -> None:
    host = world.hosts[0]
    a, b = await host.vnic(), await host.vnic()
    await host.run(a, b)
    async with ConnectionTester(a.guest, b.guest, Proto.TCP, 7001) as tcp:
        assert await tcp.check()
        await host.set_groups(b, CLOSED)
        assert not await tcp.check()
        await host.set_groups(b, OPEN)
        assert await tcp.check()


async def test_too_many_rules_fail_their_vnic_and_no_other(world: World) -> None:
    host = world.hosts[0]
    many = UUID(int=257)
    host.groups[many] = tuple(rule(protocol=6, ports=(port, port)) for port in range(501))
    a, b, c = await host.vnic(), await host.vnic(), await host.vnic()
    host.ports[b.vnic_id] = msgspec.structs.replace(b.port, security_groups=(many,))
    await host.run(a, c)
    report = world.reports[host.host_id]
    assert report.failed == {
        b.vnic_id: "its security groups have 501 inbound rules, at most 500 are possible"
    }
    assert (await a.guest.ping(c.guest)).received == 3
    await host.withdraw(b)


# ---- learning ----------------------------------------------------------------------------------


async def test_the_first_packet_is_relayed_and_the_rest_go_direct(world: World) -> None:
    here, _ = world.hosts
    a, b = await remote_pair(world)
    before = world.relayed()
    assert (await a.guest.ping(b.guest, count=1)).received == 1
    assert world.relayed() > before
    entry = await learned(here, b)
    assert entry.vtep == str(world.hosts[1].node.ip)
    await learned(world.hosts[1], a)
    before = world.relayed()
    assert (await a.guest.ping(b.guest, count=10, interval=0.01)).received == 10
    assert world.relayed() == before
    view = here.view_of(a, await here.show())
    assert (view.relayed, view.direct) == (1, 10)


@pytest.mark.alone
async def test_a_changed_route_is_acted_on_within_the_lifetime_of_an_entry(world: World) -> None:
    here, _ = world.hosts
    a, b = await remote_pair(world)
    await a.guest.ping(b.guest, count=1)
    before = await learned(here, b)
    for gateway in world.gateways:
        gateway.say(b, IPv4Address("198.18.9.9"), revision=2)

    def moved(shown: VswitchShow) -> bool:
        entry = entry_for(b, shown)
        return entry is not None and (entry.vtep, entry.revision) == ("198.18.9.9", 2)

    took = await here.shows(moved)
    assert took < 0.15 + 0.25  # lifetime and scan, and what a busy machine adds
    assert before.generation % 2 == 1


@pytest.mark.alone
async def test_a_route_that_is_withdrawn_leaves_the_cache(world: World) -> None:
    here, _ = world.hosts
    a, b = await remote_pair(world)
    await a.guest.ping(b.guest, count=1)
    await learned(here, b)
    for gateway in world.gateways:
        gateway.remove_route(b)
    assert await here.shows(lambda shown: entry_for(b, shown) is None) < 0.4


@pytest.mark.alone
async def test_an_unknown_destination_is_asked_about_once_a_second(world: World) -> None:
    """And not 50 times, as it is pinged; twice where a gateway answers late."""
    here, _ = world.hosts
    a = await here.vnic()
    await here.run(a)
    nobody = IPv4Address("10.1.77.77")
    async with a.guest.pinger(nobody, interval=0.02):
        no_route = 'achelous_vswitch_fc_learned_total{answer="no route"}'
        third = await here.metric(no_route) + 2
        took = await wait_until(lambda: here.metric_is(no_route, above=third), "three answers")
        asked = sum(gateway.asked_for(nobody) for gateway in world.gateways)
        assert asked <= 2 * (took + 1)
        assert entry_for(a, await here.show()) is None


async def test_a_silent_gateway_is_passed_over(world: World) -> None:
    here, _ = world.hosts
    a, b = await remote_pair(world)
    world.gateways[0].silent = True
    try:
        await a.guest.ping(b.guest, count=1)
        await learned(here, b)
    finally:
        world.gateways[0].silent = False


# ---- gateways ----------------------------------------------------------------------------------


def shares(shown: VswitchShow) -> list[float]:
    return sorted(gateway.share for gateway in shown.gateways)


@pytest.mark.alone
async def test_a_dead_gateway_loses_its_share_within_a_second_and_gets_it_back(
    world: World,
) -> None:
    here = world.hosts[0]
    await here.shows(lambda shown: shares(shown)[0] > 0.4)
    await world.gateways[0].node.down()
    try:
        assert await here.shows(lambda shown: shares(shown) == [0, 1]) < 1
    finally:
        await world.gateways[0].node.up()
    await here.shows(lambda shown: shares(shown)[0] > 0.4)


@pytest.mark.alone
async def test_a_gateway_that_nobody_vouches_for_loses_its_share(world: World) -> None:
    here = world.hosts[0]
    await here.shows(lambda shown: shares(shown)[0] > 0.4)
    world.gateways[1].heartbeat(-2.0)
    assert await here.shows(lambda shown: shares(shown) == [0, 1]) < 1
    world.gateways[0].heartbeat(-2.0)  # now none is any better
    await here.shows(lambda shown: shares(shown)[0] > 0.4)
    for gateway in world.gateways:
        gateway.heartbeat(3600)
    await here.shows(lambda shown: all(gateway.live for gateway in shown.gateways))


# ---- restarts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["terminated", "killed"])
async def test_a_restart_loses_no_packet_and_keeps_what_was_learned(world: World, how: str) -> None:
    here, _ = world.hosts
    a, b = await remote_pair(world)
    c = await here.vnic()
    await here.run(c)
    async with (
        a.guest.pinger(b.guest, interval=0.01) as far,
        a.guest.pinger(c.guest, interval=0.01) as near,
    ):
        await far.wait_for_replies(20)
        before = await learned(here, b)
        if how == "killed":
            await here.agent.kill9()
        else:
            await here.agent.stop()
            assert here.agent.returncode == 0
        await far.wait_for_replies(20)  # nobody is there, and packets pass
        await here.start_again()
        await far.wait_for_replies(20)
        after = await learned(here, b)
        counts = await far.stop(), await near.stop()
    assert [count.sent - count.received for count in counts] == [0, 0]
    assert after.generation == before.generation
    assert here.view_of(a, await here.show()).tx_packets >= counts[0].sent


async def test_changes_made_while_the_agent_was_away_are_applied(world: World) -> None:
    here, _ = world.hosts
    a, b, c = await here.vnic(), await here.vnic(), await here.vnic()
    await here.run(a, b)
    await here.agent.kill9()
    await here.plug(c)
    here.ports[c.vnic_id] = c.port
    del here.ports[b.vnic_id]
    await here.publish()
    await here.start_again()
    assert (await a.guest.ping(c.guest)).received == 3
    assert (await a.guest.ping(b.guest, count=1, wait=0.2)).received == 0


async def test_without_the_bus_packets_pass_and_with_it_again_documents_do(world: World) -> None:
    here, _ = world.hosts
    a, b = await remote_pair(world)
    c = await here.vnic()
    async with a.guest.pinger(b.guest, interval=0.01) as pinger:
        await pinger.wait_for_replies(20)
        await world.nats.kill9()
        await pinger.wait_for_replies(20)
        await world.nats.start()
        await wait_until(lambda: world.bus.connected, "the bus to be back")
        await here.run(c)
        count = await pinger.stop()
    assert count.sent == count.received
    assert (await a.guest.ping(c.guest)).received == 3


# ---- what changed since the whole document -----------------------------------------------------


async def test_a_host_runs_its_document_with_what_changed_since(world: World) -> None:
    host, _ = world.hosts
    a, b, c = [await host.vnic() for _ in range(3)]
    await host.run(a, b)
    base = host.revision

    await host.change(base, new=[c], gone=[b])
    assert (await a.guest.ping(c.guest)).received == 3
    assert (await a.guest.ping(b.guest)).received == 0

    await host.agent.stop()
    await host.start_again()  # it finds both on the stream
    assert (await a.guest.ping(c.guest)).received == 3

    host.ports[b.vnic_id] = b.port
    await host.publish()
    await host.applied()
    assert (await a.guest.ping(b.guest)).received == 3


# ---- bad input ---------------------------------------------------------------------------------


async def test_garbage_on_the_bus_is_counted_and_changes_nothing(world: World) -> None:
    host = world.hosts[0]
    a, b = await host.vnic(), await host.vnic()
    await host.run(a, b)
    subject = subjects.host(host.host_id)
    old = messages.HostDocument(host_id=host.host_id, revision=1, ports=(), security_groups={})
    other = messages.HostDocument(host_id=OPEN, revision=10**6, ports=(), security_groups={})
    bad = {
        "garbage": b"\xc1 this is no msgpack",
        "unknown version": msgspec.msgpack.encode({"v": 99}),
        "older": messages.encode(old),
        "another host's": messages.encode(other),
    }
    for reason, data in bad.items():
        await world.publish_raw(subject, data)
        counter = f'achelous_vswitch_bus_rejected_total{{reason="{reason}"}}'
        await wait_until(lambda: host.metric_is(counter, above=0), reason)  # noqa: B023
    await world.publish_raw(subjects.FLEET, b"\xc1")
    assert (await host.show()).revision == host.revision
    assert (await a.guest.ping(b.guest)).received == 3
    await host.publish()  # the stream's last document is a good one again
    await world.publish_fleet()
    await host.applied()


# ---- looking at it -----------------------------------------------------------------------------


async def test_an_operator_sees_ports_sessions_and_gateways(world: World) -> None:
    here, _ = world.hosts
    a, b = await remote_pair(world)
    async with ConnectionTester(a.guest, b.guest, Proto.TCP, 7002) as tcp:
        assert await tcp.check()
    shown = await here.show()
    (session,) = [s for s in shown.sessions if s.destination == f"{b.guest.ip}:7002"]
    assert session.source.startswith(f"{a.guest.ip}:")
    assert (session.protocol, session.state) == ("tcp", "closed")
    assert min(session.packets) > 0
    assert here.view_of(a, shown).device == a.device
    assert all(gateway.rtt_us for gateway in shown.gateways)


async def test_it_is_ready_and_its_metrics_name_no_tenant(world: World) -> None:
    here, _ = world.hosts
    a, _ = await remote_pair(world)
    assert (await here.get("/readyz")).status_code == 200
    text = (await here.get("/metrics")).text
    assert 'achelous_vswitch_ports{state="active"}' in text
    assert str(a.guest.ip) not in text
    assert a.device not in text
    assert str(a.vnic_id) not in text


async def test_detach_removes_the_packet_path_of_a_host(world: World) -> None:
    there = world.hosts[1]
    await there.agent.stop()
    detach = there.process("detach", "detach")
    await detach.start()
    assert await detach.wait(timeout=20) == 0
    assert not {"maps", "links"} & {left.name for left in there.bpffs.iterdir()}
    await there.start_again()  # from nothing
