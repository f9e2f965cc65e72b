"""What nobody should send: each is counted or answered with its error, and nothing else changes."""

import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from platform_world import Net, learned, metric, port_of, tables, vswitch, wait_for_equal_tables
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet

from achelous_lab.api import Object
from achelous_lab.netns.namespace import Namespace
from achelous_lab.netns.underlay import UNDERLAY_DEVICE, UNDERLAY_NETWORK
from achelous_lab.platform import Instance, Lab, Machine, Size
from achelous_lab.waiting import wait_until
from achelous_shared import subjects
from achelous_shared.bus import Bus
from achelous_shared.bus_roles import Role
from achelous_shared.messages import Message

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
async def lab() -> AsyncIterator[Lab]:
    async with Lab(Size(hosts=2, gateways=1)) as lab:
        yield lab


@pytest.fixture(scope="module")
async def pair(lab: Lab) -> tuple[Net, Instance, Instance]:
    net = await Net.create(lab)
    a, b = await net.run(0, 1)
    await a.guest.ping(b.guest, count=2)
    await learned(lab, a, b)
    return net, a, b


async def still_well(lab: Lab, a: Instance, b: Instance) -> None:
    assert (await a.guest.ping(b.guest, count=3)).lost == 0
    await wait_for_equal_tables(lab)


async def send(namespace: Namespace, device: str, *frames: bytes) -> None:
    """Frames as they are, out of a device in a namespace."""

    def inside() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
            link.bind((device, 0))
            for frame in frames:
                link.send(frame)

    await namespace.call(inside)


@pytest.mark.parametrize("data", [b"", b"\xc1garbage", b"\x81\xa1v\x63"], ids=repr)
async def test_garbage_on_the_bus(
    lab: Lab, pair: tuple[Net, Instance, Instance], data: bytes
) -> None:
    _, a, b = pair
    async with Bus.connect(lab.nats_url(Role.OBSERVER), role=Role.OBSERVER, name="test") as bus:
        for stream, subject in (
            (subjects.ROUTES_STREAM, subjects.routes(5)),
            (subjects.HOSTS_STREAM, subjects.host(lab.hosts[0].id)),
            (subjects.HOSTS_STREAM, subjects.FLEET),
        ):
            await bus.publish_stream(stream, subject, data, message_id=f"{subject}-{data!r}")
    async with Bus.connect(lab.nats_url(Role.GATEWAY), role=Role.GATEWAY, name="test") as bus:
        for subject in (subjects.SNAPSHOT_ROUTES, subjects.SNAPSHOT_REVISIONS):
            assert await bus.request(subject, data, timeout=5)  # which says what is wrong
    async with Bus.connect(lab.nats_url(Role.VSWITCH), role=Role.VSWITCH, name="test") as bus:
        reply = await bus.request(subjects.rsp(lab.gateways[0].id), data, timeout=5)
        assert len(reply) == 16  # a header without entries
    await still_well(lab, a, b)
    host = lab.hosts[0]
    await wait_until(
        lambda: _rejected(lab, host), "the host to count what it did not take", timeout=5
    )


async def _rejected(lab: Lab, host: Machine) -> bool:
    text = (await lab.ask(host, "metrics")).text
    return any("rejected" in line and not line.startswith("#") for line in text.splitlines())


async def test_an_unknown_version_on_the_bus(
    lab: Lab, pair: tuple[Net, Instance, Instance]
) -> None:
    _, a, b = pair
    later = Message(v=99)
    async with Bus.connect(lab.nats_url(Role.OBSERVER), role=Role.OBSERVER, name="test") as bus:
        await bus.publish(subjects.host(lab.hosts[0].id), later)
        await bus.publish(subjects.routes(5), later)
        await bus.publish(subjects.gateway_applied(lab.gateways[0].id), later)
    await wait_until(
        lambda: _counted(lab, "programming_bad_messages_total"), "the controller to count it"
    )
    await still_well(lab, a, b)


async def _counted(lab: Lab, name: str) -> bool:
    return await metric(lab, lab.controllers[0], name) > 0


@dataclass(frozen=True, slots=True)
class Change:
    """What is wrong with a frame."""

    mac: str | None = None
    ip: str | None = None
    vlan: int | None = None
    protocol: int = 1
    """What its IP header says of the 8 bytes behind it: too few for a TCP header."""


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("spoofed_mac", Change(mac="02:00:00:00:ff:ff")),
        ("spoofed_ip", Change(ip="10.0.0.250")),
        ("truncated", Change(protocol=6)),
        ("unsupported_ethertype", Change(vlan=5)),
    ],
)
async def test_frames_that_a_guest_must_not_send(
    lab: Lab,
    pair: tuple[Net, Instance, Instance],
    reason: str,
    change: Change,
) -> None:
    _, a, b = pair
    nic = a.guest.nics[0]
    source = change.ip or str(a.guest.ip)
    inner: Packet = IP(src=source, dst=str(b.guest.ip), proto=change.protocol) / ICMP()
    if change.vlan is not None:
        inner = Dot1Q(vlan=change.vlan) / inner
    frame = Ether(src=change.mac or nic.mac, dst="0e:ac:e1:00:00:01") / inner
    data = bytes(frame)

    before = (await port_of(lab, a))["drops"].get(reason, 0)
    await send(a.guest.namespace, "eth0", data, data, data)

    async def counted() -> bool:
        return bool((await port_of(lab, a))["drops"].get(reason, 0) >= before + 3)

    await wait_until(counted, f"3 more drops as {reason}")
    await still_well(lab, a, b)


async def test_vxlan_from_a_stranger_and_for_a_vni_that_is_not_here(
    lab: Lab, pair: tuple[Net, Instance, Instance]
) -> None:
    _, a, b = pair
    vni = (await port_of(lab, b))["vni"]
    stranger = await lab.network.underlay.node(
        "stranger", UNDERLAY_NETWORK.network_address + 0x0900
    )
    inner = (
        Ether(src=a.vnics[0]["mac"], dst=b.vnics[0]["mac"])
        / IP(src=str(a.guest.ip), dst=str(b.guest.ip))
        / ICMP()
    )

    def wrapped(source: str, target: str, number: int) -> bytes:
        outer = Ether(dst="ff:ff:ff:ff:ff:ff") / IP(src=source, dst=target)
        udp = UDP(sport=50000, dport=4789, chksum=0)
        return bytes(outer / udp / VXLAN(vni=number, flags=8) / inner)

    host, gateway = b.host, lab.gateways[0]
    own, known_host = str(stranger.ip), str(a.host.node.ip)
    await send(
        stranger.namespace,
        UNDERLAY_DEVICE,
        wrapped(own, str(host.node.ip), vni),
        wrapped(known_host, str(host.node.ip), 77),
        wrapped(own, str(gateway.node.ip), vni),
        wrapped(known_host, str(gateway.node.ip), 77),
    )

    async def counted() -> bool:
        at_host: Object = (await vswitch(lab, host))["drops"]
        at_gateway: Object = (await tables(lab, gateway))["drops"]
        return at_host.keys() >= {"unknown_vtep", "unknown_vni"} and (
            at_gateway.keys() >= {"unknown_vtep", "no_route"}
        )

    await wait_until(counted, "each to be a counted drop")
    await still_well(lab, a, b)
