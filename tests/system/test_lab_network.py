"""The lab's network vocabulary, tried over the kernel's own bridge and VXLAN."""

import asyncio
import signal
import sys
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from achelous_lab.netns import links
from achelous_lab.netns.cables import Cable
from achelous_lab.netns.connection import ConnectionTester, Proto
from achelous_lab.netns.guest import Guest, Nic
from achelous_lab.netns.kernel_vxlan import KernelVxlan
from achelous_lab.netns.namespace import NETNS_DIR
from achelous_lab.netns.network import Network
from achelous_lab.process import Process, run
from achelous_lab.rundir import RunDir
from achelous_lab.sweep import sweep_stale
from achelous_lab.waiting import wait_until

pytestmark = pytest.mark.kernel

VNI = 42


@dataclass
class Segment:
    """Guests `a` and `b` on the hosts `left` and `right`, one kernel VXLAN segment between."""

    network: Network
    left: KernelVxlan
    right: KernelVxlan
    a: Guest
    b: Guest
    cable_a: Cable


async def make_segment(network: Network) -> Segment:
    left, right = [
        KernelVxlan(await network.underlay.node(f"h{i}", IPv4Address(f"198.18.0.{i}")), VNI)
        for i in (1, 2)
    ]
    for here, there in ((left, right), (right, left)):
        await here.create()
        await here.flood_to(there.node.ip)
    a, b = [await network.guest(name) for name in ("a", "b")]
    cables = []
    for i, (guest, host) in enumerate(((a, left), (b, right)), start=1):
        nic = Nic(f"02:00:00:00:00:0{i}", IPv4Interface(f"10.0.0.{i}/24"))
        cable = await guest.add_nic(network.cables, nic)
        await cable.plug(host.node.namespace, f"v{i}")
        await host.attach(f"v{i}")
        cables.append(cable)
    return Segment(network, left, right, a, b, cables[0])


@pytest.fixture
async def segment(network: Network) -> Segment:
    return await make_segment(network)


async def test_guests_on_two_hosts_ping_each_other(segment: Segment) -> None:
    result = await segment.a.ping(segment.b, count=5)
    assert (result.sent, result.received) == (5, 5)
    assert len(result.rtts) == 5
    assert all(0 < rtt < 1 for rtt in result.rtts)


async def test_ping_to_nobody_is_a_result_not_an_error(segment: Segment) -> None:
    result = await segment.a.ping(IPv4Address("10.0.0.99"), count=2, wait=0.1)
    assert (result.sent, result.lost, result.rtts) == (2, 2, ())


async def test_curl_reaches_the_http_server_of_another_guest(segment: Segment) -> None:
    async with segment.b.serve_http(8080) as url:
        hello = await segment.a.curl(url)
        bulk = await segment.a.curl(f"{url}/bytes/1000000")
        missing = await segment.a.curl(f"{url}/nothing")
    assert hello.ok
    assert hello.body == f"{segment.b.name}\n".encode()
    assert len(bulk.body) == 1_000_000
    assert missing.status == 404


async def test_curl_without_a_server_says_why(segment: Segment) -> None:
    refused = await segment.a.curl("http://10.0.0.2:9", timeout=2)
    assert (refused.status, refused.ok) == (0, False)
    assert "connect" in refused.error


async def test_iperf3_measures_tcp_and_udp(segment: Segment) -> None:
    tcp = await segment.a.iperf3(segment.b, seconds=1)
    assert tcp.bits_per_second > 100e6
    udp = await segment.a.iperf3(segment.b, seconds=1, udp=True, bitrate="10M", length=1000)
    assert udp.bits_per_second == pytest.approx(10e6, rel=0.3)
    assert udp.packets > 500
    arrived = (udp.packets - udp.lost) * 1000 * 8
    assert udp.bits_per_second * udp.seconds == pytest.approx(arrived, rel=0.1)
    assert 0 <= udp.lost < udp.packets


async def test_pinger_counts_exactly_and_measures_an_outage(segment: Segment) -> None:
    async with segment.a.pinger(segment.b, interval=0.005) as pinger:
        await pinger.wait_for_replies(100)
        whole = await pinger.stop()
    assert whole.done
    assert whole.sent == whole.received >= 100
    assert whole.duplicates == 0

    async with segment.a.pinger(segment.b, interval=0.005) as pinger:
        await pinger.wait_for_replies(20)
        await segment.right.node.down()
        await wait_until(
            lambda: pinger.count().lost > 60, lambda: f"60 lost: {pinger.count()}", timeout=5
        )
        await segment.right.node.up()
        await pinger.wait_for_replies(20)
        broken = await pinger.stop()
    assert broken.lost > 60
    assert broken.longest_gap > 0.2
    assert broken.longest_gap == pytest.approx(broken.lost * 0.005, rel=0.5)


@pytest.mark.parametrize("proto", list(Proto))
async def test_connection_tester_notices_when_the_way_closes_and_opens(
    segment: Segment, proto: Proto
) -> None:
    async with ConnectionTester(segment.a, segment.b, proto, 7000) as tester:
        await tester.wait_until(reachable=True)
        await segment.right.node.down()
        await tester.wait_until(reachable=False)
        assert not await tester.check(timeout=0.1)
        await segment.right.node.up()
        assert await tester.wait_until(reachable=True) < 5


@pytest.mark.alone
async def test_a_cable_moves_to_another_host_and_no_tcp_connection_notices(
    segment: Segment,
) -> None:
    old, new = segment.left.node.namespace, segment.right.node.namespace
    await segment.cable_a.prepare(new, "v9")
    await segment.right.attach("v9")
    async with segment.b.serve_http() as url, segment.a.pinger(segment.b) as pinger:
        transfer = asyncio.create_task(segment.a.curl(f"{url}/drip/2", timeout=20))
        await pinger.wait_for_replies(10)
        for source, target in ((old, new), (new, old), (old, new)):
            await segment.cable_a.move(source, target, segment.a.ip)
            await pinger.wait_for_replies(10)
        assert not transfer.done(), "the transfer ended before the cable was at rest"
        transferred = await transfer
        count = await pinger.stop()
    assert (transferred.status, transferred.error) == (200, "")
    assert len(transferred.body) == 200_000
    assert transferred.seconds < 3
    assert count.lost <= 3, count
    assert count.longest_gap < 1


async def test_unplugged_and_plugged_into_another_host(segment: Segment) -> None:
    await segment.cable_a.unplug(segment.left.node.namespace)
    assert (await segment.a.ping(segment.b, count=1, wait=0.1)).received == 0
    await segment.cable_a.plug(segment.right.node.namespace, "v9")
    await segment.right.attach("v9")
    assert (await segment.a.ping(segment.b)).received == 3


async def test_a_guest_is_set_up_as_dhcp_would(segment: Segment) -> None:
    guest = await segment.network.guest("c")
    nics = [
        Nic("02:00:00:00:00:03", IPv4Interface("10.0.1.5/24"), IPv4Address("10.0.1.1")),
        Nic("02:00:00:00:00:04", IPv4Interface("10.0.2.5/32")),
    ]
    for nic in nics:
        await guest.add_nic(segment.network.cables, nic)
    shown = (await run(["ip", "-o", "addr"], netns=guest.name, timeout=5)).stdout.decode()
    routes = (await run(["ip", "route"], netns=guest.name, timeout=5)).stdout.decode()
    assert "10.0.1.5/24" in shown
    assert "10.0.2.5/32" in shown
    assert "inet6" not in shown
    assert "default via 10.0.1.1 dev eth0" in routes
    mac, mtu = await guest.namespace.netlink(_eth0)
    assert (mac, mtu) == ("02:00:00:00:00:03", 1500)


def _eth0(netlink: IPRoute) -> tuple[str, int]:
    (link,) = netlink.get_links(links.index_of(netlink, "eth0"))
    return str(link.get("address")), int(link.get("mtu"))


async def test_the_link_local_router_of_a_32_subnet_is_on_the_link(network: Network) -> None:
    guest = await network.guest("c")
    nic = Nic("02:00:00:00:00:03", IPv4Interface("10.0.1.5/32"), IPv4Address("169.254.1.1"))
    await guest.add_nic(network.cables, nic)
    routes = (await run(["ip", "route"], netns=guest.name, timeout=5)).stdout.decode()
    assert "default via 169.254.1.1 dev eth0" in routes


async def test_two_labs_side_by_side_do_not_meet(segment: Segment) -> None:
    """The same host names, underlay addresses, MACs and guest addresses, twice."""
    with RunDir.create() as other_dir:
        async with Network(other_dir) as other_network:
            other = await make_segment(other_network)
            async with segment.b.serve_http() as url, other.b.serve_http() as other_url:
                assert url == other_url
                assert (await segment.a.curl(url)).body == f"{segment.b.name}\n".encode()
                assert (await other.a.curl(url)).body == f"{other.b.name}\n".encode()
        assert not list(NETNS_DIR.glob(f"{other_dir.prefix}-*"))
    assert (await segment.a.ping(segment.b)).received == 3


async def test_nothing_is_left_after_the_end_nor_after_a_failure() -> None:
    devices = set(Path("/sys/class/net").iterdir())
    for failing in (False, True):
        with RunDir.create() as run_dir:
            try:
                async with Network(run_dir) as network:
                    segment = await make_segment(network)
                    async with segment.a.pinger(segment.b) as pinger:
                        await pinger.wait_for_replies(3)
                        pid = pinger.pid
                        if failing:
                            raise ZeroDivisionError  # noqa: TRY301  the failure of a test
            except ZeroDivisionError:
                assert failing
            assert not list(NETNS_DIR.glob(f"{run_dir.prefix}-*"))
            assert not Path(f"/proc/{pid}").exists()
        assert not run_dir.path.exists()
    assert set(Path("/sys/class/net").iterdir()) == devices


KILLED_LAB = """
import asyncio, os, sys
from ipaddress import IPv4Address
from pathlib import Path
from achelous_lab import syscalls
from achelous_lab.netns.network import Network
from achelous_lab.process import Process
from achelous_lab.rundir import RunDir

async def main():
    run_dir = RunDir.create(Path(sys.argv[1]))
    syscalls.mount("bpf", run_dir.subdir("bpf"))
    async with Network(run_dir) as network:
        node = await network.underlay.node("h1", IPv4Address("198.18.0.1"))
        sleeper = Process("sleeper", ["sleep", "600"], log=run_dir.log("s"), netns=node.name)
        await sleeper.start()
        print(run_dir.prefix, sleeper.pid, flush=True)
        os.kill(os.getpid(), 9)

asyncio.run(main())
"""


async def test_what_a_killed_lab_has_left_is_swept_and_nothing_else(
    segment: Segment, tmp_path: Path
) -> None:
    lab = Process("lab", [sys.executable, "-c", KILLED_LAB, tmp_path], log=tmp_path / "lab.log")
    await lab.start()
    assert await lab.wait(timeout=20) == -signal.SIGKILL
    prefix, pid = lab.log.read_text().split()
    assert list(NETNS_DIR.glob(f"{prefix}-*"))
    with RunDir.create(tmp_path) as living:
        assert sweep_stale(tmp_path) == [prefix]
        assert living.path.exists()
    assert not list(NETNS_DIR.glob(f"{prefix}-*"))
    assert not list(tmp_path.glob("achelous-*"))
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    await wait_until(lambda: not _runs(int(pid)), "the killed lab's child to end")
    assert (await segment.a.ping(segment.b)).received == 3


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


_IP_COMES_SECOND = """
import asyncio, subprocess
from achelous_lab.netns.namespace import Namespace

async def main():
    ours = await Namespace.create("ours")
    subprocess.run(["ip", "netns", "add", "theirs"], check=True)
    ours.remove()
    assert not ours.path.exists()
    subprocess.run(["ip", "netns", "del", "theirs"], check=True)

asyncio.run(main())
"""


async def test_a_namespace_can_be_removed_though_ip_made_its_first_after_it() -> None:
    """On a machine where nobody had made one yet: its own /run, in a mount namespace."""
    inside = 'mount -t tmpfs none /run && exec "$0" -c "$1"'
    argv = ["unshare", "--mount", "sh", "-c", inside, sys.executable, _IP_COMES_SECOND]
    await run(argv, timeout=30)
