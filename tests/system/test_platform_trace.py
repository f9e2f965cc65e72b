"""`achelous trace` on a whole platform: what it foretells is what the real packet then meets."""

import base64
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from platform_world import learned, port_of, tables, vswitch
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.utils import wrpcap
from system.cli.conftest import Cli

from achelous_lab.api import Object, Rule
from achelous_lab.platform import Instance, Lab, Size
from achelous_lab.waiting import wait_until
from achelous_shared.names import ROUTER_MAC

pytestmark = pytest.mark.kernel

ROUTER: Final = ROUTER_MAC.hex(":")
PAST: Final = ("local", "direct", "relayed")


@dataclass(slots=True)
class World:
    """`a`, `c` and `shut` on one host, `b` in another subnet on the other one.

    Everything may reach them but `shut`, which is in no group; tcp to port 81 is denied to who
    comes, udp to port 9 to who goes.
    """

    lab: Lab
    a: Instance
    b: Instance
    c: Instance
    shut: Instance
    group: Object
    heard: dict[str, socket.socket] = field(default_factory=dict)

    async def trace(self, sender: Instance, frame: bytes) -> Object:
        body = {"vnic_id": sender.vnics[0]["id"], "frame": base64.b64encode(frame).decode()}
        return await self.lab.api.post(f"/hosts/{sender.host.id}/trace", body)

    def frames(self, at: Instance) -> list[bytes]:
        """What has come to a guest since the last call."""
        found = []
        while True:
            try:
                found.append(self.heard[str(at.id)].recv(4096))
            except BlockingIOError:
                return found

    def send(self, sender: Instance, frame: bytes) -> None:
        self.heard[str(sender.id)].send(frame)

    async def drops(self, hop: Object) -> dict[str, int]:
        """Of a host or gateway, by reason."""
        show = vswitch if hop["kind"] == "host" else tables
        machines = [*self.lab.hosts, *self.lab.gateways]
        [machine] = [one for one in machines if str(one.id) == hop["id"]]
        found: dict[str, int] = (await show(self.lab, machine))["drops"]
        return found


@pytest.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    async with Lab(Size(hosts=2, gateways=1)) as lab:
        tenant = await lab.tenant("traced")
        vpc = await tenant.vpc("prod")
        near = await tenant.subnet(vpc, "10.0.0.0/24", cidr6="fd00:0:0:1::/64")
        far = await tenant.subnet(vpc, "10.0.1.0/24", cidr6="fd00:0:0:2::/64")
        group = await tenant.security_group(
            vpc, "web", Rule(), Rule(remote="::/0"),
            Rule("egress", "udp", port_min=9, port_max=9, action="deny", priority=10),
            *(
                Rule("ingress", "tcp", 81, 81, remote=remote, action="deny", priority=10)
                for remote in ("0.0.0.0/0", "::/0")
            ),
        )  # fmt: skip
        made = [
            await lab.instance(tenant, subnet, name, host=lab.hosts[host], groups=groups)
            for name, subnet, host, groups in (
                ("a", near, 0, [group]),
                ("b", far, 1, [group]),
                ("c", near, 0, [group]),
                ("shut", near, 0, []),
            )
        ]
        with ExitStack() as closing:
            a, b, c, shut = made
            world = World(lab, a, b, c, shut, group)
            for one in made:
                link = await one.guest.namespace.socket(socket.SOCK_RAW, socket.AF_PACKET)
                closing.enter_context(link)
                link.bind(("eth0", 0x0003))
                link.setblocking(False)
                world.heard[str(one.id)] = link
            yield world


def sent_by(sender: Instance, *layers: Any, src: str | None = None, dst: str = ROUTER) -> bytes:
    """The frame that a guest makes of these layers."""
    packet = Ether(src=src or sender.vnics[0]["mac"], dst=dst)
    for layer in layers:
        packet /= layer
    return bytes(packet)


def v4(sender: Instance, to: Instance | str, *layers: Any, **ip: Any) -> bytes:
    """Likewise, in IPv4 to another guest or address."""
    target = to if isinstance(to, str) else str(to.guest.ip)
    return sent_by(sender, IP(**{"src": str(sender.guest.ip), "dst": target} | ip), *layers)


def v6(sender: Instance, to: Instance, *layers: Any) -> bytes:
    return sent_by(sender, IPv6(src=str(sender.guest.ip6), dst=str(to.guest.ip6)), *layers)


def discover(sender: Instance) -> bytes:
    mac = sender.vnics[0]["mac"]
    return sent_by(
        sender,
        IP(src="0.0.0.0", dst="255.255.255.255"),  # noqa: S104 - nothing is bound
        UDP(sport=68, dport=67),
        BOOTP(chaddr=bytes.fromhex(mac.replace(":", "")), xid=7),
        DHCP(options=[("message-type", "discover"), "end"]),
        dst="ff:ff:ff:ff:ff:ff",
    )


@dataclass(frozen=True, slots=True)
class Case:
    """A frame, and what a reader of this file would expect of it."""

    name: str
    sender: Instance
    frame: bytes
    outcome: str
    """`<outcome>[ <reason>] <kinds of hops>`"""
    to: Instance | None = None


def cases(world: World) -> list[Case]:
    """In this order: each is a flow of its own, but for the last ones.

    Two packets are relayed to each address of `b`: after them its routes are learned.
    """
    a, b, c, shut = world.a, world.b, world.c, world.shut
    tcp, udp = TCP(sport=1001, dport=80), UDP(sport=1002, dport=7)
    router = "10.0.0.1"
    return [
        Case("relayed", a, v4(a, b, tcp), "delivered host gateway host", b),
        Case("denied in", a, v4(a, b, TCP(dport=81)), "dropped acl_ingress host gateway host"),
        Case("denied out", a, v4(a, b, UDP(dport=9)), "dropped acl_egress host"),
        Case("no rule", a, v4(a, shut, tcp), "dropped acl_ingress host"),
        Case("spoofed IP", a, v4(a, b, udp, src="10.0.0.77"), "dropped spoofed_ip host"),
        Case("spoofed MAC", a, sent_by(a, IP(src=str(a.guest.ip), dst=str(b.guest.ip)), udp,
             src="02:00:00:00:00:99"), "dropped spoofed_mac host"),
        Case("nobody there", a, v4(a, "10.0.1.200", udp), "dropped no_route host gateway"),
        Case("multicast", a, v4(a, "224.0.0.9", udp), "dropped multicast host"),
        Case("same host", a, v4(a, c, udp), "delivered host", c),
        Case("itself", a, v4(a, a, UDP(sport=3, dport=4)), "delivered host", a),
        Case("ping", a, v4(a, c, ICMP(id=9)), "delivered host", c),
        Case("ping of the router", a, v4(a, router, ICMP(id=9)), "answered host", a),
        Case("to the router", a, v4(a, router, TCP(dport=22)), "dropped for_router host"),
        Case("TTL 1 on the link", a, v4(a, c, UDP(sport=5), ttl=1), "delivered host", c),
        Case("TTL 1", a, v4(a, b, UDP(sport=5), ttl=1), "refused ttl_expired host", a),
        Case("IP options", a, v4(a, c, UDP(sport=6), options=[b"\x01" * 4]), "delivered host", c),
        Case("later fragment", a, v4(a, c, b"x" * 64, proto=17, frag=3), "dropped fragment host"),
        Case("IPv6", a, v6(a, b, TCP(sport=8, dport=80)), "delivered host gateway host", b),
        Case("IPv6, denied", a, v6(a, b, TCP(dport=81)), "dropped acl_ingress host gateway host"),
        Case("IPv6 ping", a, v6(a, c, ICMPv6EchoRequest(id=3)), "delivered host", c),
        Case("DHCP", a, discover(a), "answered host", a),
        Case("ARP", a, sent_by(a, ARP(hwsrc=a.vnics[0]["mac"], psrc=str(a.guest.ip), pdst=router),
             dst="ff:ff:ff:ff:ff:ff"), "answered host", a),
        Case("neither IP nor ARP", a, sent_by(a, b"\0" * 50), "dropped unsupported_ethertype host"),
        Case("opened", shut, v4(shut, a, UDP(sport=50, dport=51)), "delivered host", a),
        Case("answer", a, v4(a, shut, UDP(sport=51, dport=50)), "delivered host", shut),
        Case("no answer", a, v4(a, shut, UDP(sport=51, dport=52)), "dropped acl_ingress host"),
    ]  # fmt: skip


def said(trace: Object) -> str:
    """A trace in a Case's words."""
    hops = [hop["kind"] for hop in trace["hops"]]
    return " ".join(word for word in (trace["outcome"], trace["reason"], *hops) if word)


async def happens(world: World, case: Case, trace: Object) -> None:
    """Send the frame; raises TimeoutError unless what was foretold comes true."""
    last = trace["hops"][-1]
    before = await world.drops(last)
    past = await port_of(world.lab, case.sender)
    if case.to is not None:
        world.frames(case.to)
    world.send(case.sender, case.frame)
    seen: list[bytes] = []

    async def came_true() -> bool:
        if case.to is not None:
            seen.extend(world.frames(case.to))
            if base64.b64decode(last["frame"]) not in seen:
                return False
        reason = trace["reason"]
        if reason and (await world.drops(last)).get(reason, 0) == before.get(reason, 0):
            return False
        return await _went(world, case, trace, past)

    foretold = f"{case.name}: {said(trace)} {trace['words']}"
    await wait_until(came_true, lambda: f"{foretold}; {seen=}", timeout=5)


async def _went(world: World, case: Case, trace: Object, past: Object) -> bool:
    """Whether the sender's host counted the way on which the trace went."""
    now = await port_of(world.lab, case.sender)
    moved = {way for way in PAST if now[way] != past[way]}
    if len(trace["hops"]) > 1:
        return ("relayed" if trace["hops"][1]["kind"] == "gateway" else "direct") in moved
    return trace["outcome"] != "delivered" or "local" in moved


async def test_what_is_foretold_comes_true(world: World) -> None:
    wrong = []
    for case in cases(world):
        trace = await world.trace(case.sender, case.frame)
        if said(trace) != case.outcome:
            wrong.append(f"{case.name}: {said(trace)} {trace['words']}, not {case.outcome}")
        try:
            await happens(world, case, trace)
        except TimeoutError as error:
            wrong.append(str(error))
    assert wrong == []


async def test_once_the_route_is_known_the_trace_goes_direct(world: World) -> None:
    a, b = world.a, world.b
    await a.guest.ping(b.guest, count=3)
    await learned(world.lab, a, b)
    case = Case("direct", a, v4(a, b, TCP(sport=2001, dport=80)), "delivered host host", b)
    trace = await world.trace(a, case.frame)
    assert said(trace) == case.outcome
    route = next(step for step in trace["hops"][0]["steps"] if step["table"] == "fc")
    assert (route["entry"]["ip"], route["generation"] % 2) == (str(b.guest.ip), 1)
    assert 0 <= route["age_s"] < 10
    await happens(world, case, trace)


async def test_the_rule_that_decides_is_named_with_its_group(world: World) -> None:
    frame = v4(world.a, world.b, TCP(sport=2002, dport=81))
    trace = await world.trace(world.a, frame)
    asked = [step for step in trace["hops"][-1]["steps"] if step["action"] == "rule"]
    rules = (await world.lab.api.get(f"/security-groups/{world.group['id']}/rules"))["items"]
    [denying] = [
        rule["id"] for rule in rules
        if (rule["action"], rule["direction"]) == ("deny", "ingress") and rule["remote"] != "::/0"
    ]  # fmt: skip
    assert [(step["rule"], step["group_name"]) for step in asked] == [(denying, "web")]
    assert asked[0]["text"] == "deny tcp 81 from 0.0.0.0/0, priority 10"


async def test_a_trace_changes_nothing(world: World) -> None:
    frame = v4(world.a, world.c, UDP(sport=2003, dport=2004))

    async def state() -> tuple[int, dict[str, int]]:
        shown = await vswitch(world.lab, world.a.host)
        sessions = [one for one in shown["sessions"] if one["source"].endswith(":2003")]
        return len(sessions), shown["drops"].get("acl_egress", 0)

    before = await state()
    assert (await world.trace(world.a, frame))["outcome"] == "delivered"
    denied = v4(world.a, world.c, UDP(sport=2003, dport=9))
    assert (await world.trace(world.a, denied))["reason"] == "acl_egress"
    assert await state() == before


async def test_the_command_line_tells_it_to_people_and_scripts(
    world: World, tmp_path: Path
) -> None:
    a, b = world.a, world.b
    target = f"{a.host.name}/{a.vnics[0]['id']}"
    packet = f"tcp {a.guest.ip}:3001 > {b.guest.ip}:"
    url = f"http://{world.lab.addresses[0]}"
    token = str(world.lab.operator_token_file)
    cli = Cli({"ACHELOUS_URL": url, "ACHELOUS_TOKEN_FILE": token})
    passes = await cli("trace", target, packet + "80")
    denied = await cli("trace", target, packet + "81")
    assert (passes.code, denied.code) == (0, 5), (passes.err, denied.err)
    assert f"Delivered to vNIC {b.vnics[0]['id']}" in passes.out
    assert "no security-group rule of the receiver allows it" in denied.out
    capture = tmp_path / "a.pcap"
    wrpcap(str(capture), [Ether(v4(a, b, TCP(sport=3001, dport=80)))])
    captured = await cli.json("trace", target, "--pcap", str(capture))
    assert captured["accepted"] is True
    assert (await cli("trace", target, "tcp nonsense")).code == 2


async def test_a_hop_that_does_not_answer_leaves_the_rest_unknown(world: World) -> None:
    """The last test: it ends the agent of the other host, whose packets go on."""
    a, b = world.a, world.b
    frame = v4(a, b, TCP(sport=4001, dport=80))
    await b.host.agent.kill9()

    async def unknown() -> bool:
        trace = await world.trace(a, frame)
        return trace["outcome"] == "unknown" and f"host {b.host.name}" in trace["words"]

    await wait_until(unknown, "a trace without an end", timeout=20)
    world.send(a, frame)
    ports = frame[34:38]
    await wait_until(
        lambda: any(each[34:38] == ports for each in world.frames(b)), "the packet", timeout=5
    )
