"""Underlay frames of all kinds of traffic, read by tshark: nothing to complain about, and every
checksum verified."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from captures import Dissected, captured, dissect
from packets.datapath import GATEWAY_VTEP
from packets.hosts import Hosts, Programs
from packets.pairs import Pair, ip6_of
from wire_traffic import DATAGRAM_PORT, STREAM_PORT, Datagrams, set_offloads, transfer

from achelous_lab.netns.guest import Guest
from achelous_lab.netns.network import Network
from achelous_lab.netns.underlay import UNDERLAY_DEVICE
from achelous_lab.process import run

pytestmark = pytest.mark.kernel

A, B = "10.0.0.5", "10.0.1.6"
IDENTITY = 77
PROBE_PORT = 4798
DATA = f"tcp.port=={STREAM_PORT}", f"udp.port=={DATAGRAM_PORT}", f"udp.port=={PROBE_PORT}"
"""Where what is sent is of no protocol that tshark knows."""
KINDS = {
    "icmp:data", "icmp:ip:udp:data", "tcp", "tcp:data", "udp:data", "data",
    "icmpv6:data", "icmpv6:ipv6:udp:data", "ipv6.fraghdr:data",
}  # fmt: skip
"""What inner packets are, as tshark names it; `data` alone are fragments."""


@dataclass(frozen=True, slots=True)
class Wire:
    """Guest `a` and, in another subnet on another host, guest `b`, in groups that a rule names."""

    pair: Pair
    a: Guest
    b: Guest


@pytest.fixture
async def wire(network: Network, programs: Programs) -> AsyncIterator[Wire]:
    with Hosts(network, programs) as hosts:
        pair = await Pair.create(hosts, network)
        a = await pair.guest("a", pair.left, A, identity=IDENTITY)
        b = await pair.guest("b", pair.right, B)
        yield Wire(pair, a, b)


async def talk(wire: Wire, ip: str) -> None:
    """TCP, UDP and pings, fragments of both, and what nobody listens to."""
    for length in ("56", "4000"):
        argv = ["ping", "-n", "-c", "2", "-i", "0.05", "-W", "1", "-s", length, ip]
        assert b"2 received" in (await run(argv, netns=wire.a.name, timeout=10)).stdout
    await transfer(wire.a, wire.b, ip, size=300_000)
    with await Datagrams.open(wire.a, wire.b, ip) as datagrams:
        for size in (100, 1400, 4000):
            await datagrams.carry(size)
    with await Datagrams.open(wire.a, wire.b, ip) as refused:
        refused.far.close()
        refused.near.send(b"anyone?")


async def probe(wire: Wire) -> None:
    """Is the gateway alive? Its program turns the question round, and mends the checksum."""
    wire.pair.gateway.heartbeat(seconds_ago=1)
    with await wire.pair.left.attached.node.namespace.socket(socket.SOCK_DGRAM) as asking:
        asking.connect((GATEWAY_VTEP, PROBE_PORT))
        asking.send(bytes.fromhex("4143485001010000") + bytes(16))
        async with asyncio.timeout(5):
            assert len(await asyncio.get_running_loop().sock_recv(asking, 100)) == 24


def inner(frame: Dissected) -> str:
    """What is behind the inner IP header."""
    return frame.protocols.partition(":vxlan:eth:ethertype:")[2].partition(":")[2]


def checked(frame: Dissected) -> None:
    """Its checksums are there and right. Of a quoted packet tshark checks none behind IP."""
    assert frame.faults == [], frame
    assert set(frame.checksums["ip"]) == {"1"}, frame
    assert frame.checksums["udp"][0] == "3", frame
    whole = {"1"} | ({"2"} if frame.quotes else set())
    for name in ("tcp", "icmp", "icmpv6"):
        assert set(frame.checksums[name]) <= whole, frame
    assert set(frame.checksums["udp"][1:]) <= whole, frame


@pytest.mark.parametrize("offloads", ["off", "on"])
async def test_tshark_finds_no_fault(wire: Wire, offloads: str, tmp_path: Path) -> None:
    """With offloads on, guests leave TCP's and UDP's checksums to a device, and no device of this
    lab is one that fills them in: tshark does not look at those then."""
    for made in (wire.a, wire.b):
        await set_offloads(made.namespace, "eth0", offloads)
    left = wire.pair.left.attached.node.namespace
    await set_offloads(left, UNDERLAY_DEVICE, offloads)
    async with captured(left, UNDERLAY_DEVICE) as frames:
        for learned in (False, True):
            if learned:
                wire.pair.learn(A, identity=IDENTITY)
                wire.pair.learn(B)
            for ip in (B, ip6_of(B)):
                await talk(wire, ip)
        await probe(wire)
    assert wire.pair.drops() == {}
    pcap = frames.write(tmp_path / "pcap")
    read = await dissect(pcap, DATA, transport_checksums=offloads == "off")
    tunnelled = [frame for frame in read if ":vxlan:" in frame.protocols]
    assert len(tunnelled) > 100
    for frame in read:
        assert frame.faults == [], frame
    probes = [
        frame for frame in read if frame.protocols.endswith("ip:udp:data") and not inner(frame)
    ]
    assert len(probes) == 2
    if offloads == "off":
        for frame in tunnelled:
            checked(frame)
        assert all(frame.checksums["udp"] == ["1"] for frame in probes)
    assert {inner(frame) for frame in tunnelled} >= KINDS
    assert {frame.gbp for frame in tunnelled} == {"0", str(IDENTITY)}
