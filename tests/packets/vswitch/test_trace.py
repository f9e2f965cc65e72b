"""What a trace foretells is what the program that runs then does, and it leaves no trace itself."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from packets.datapath import GATEWAY_VTEP, OWN_VTEP, PEER_VTEP, VNI, Datapath, Port, Rule
from packets.frames import (
    Guest,
    arp_request,
    frame,
    guest,
    ping,
    ping6,
    tcp,
    udp,
    vxlan,
)
from packets.leases import desired, dhcp, give, to_all
from packets.outcome import LOOPBACK, Outcome
from scapy.layers.dhcp6 import DHCP6_Solicit, DHCP6OptIA_NA
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6ND_RS, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Ether

from achelous_shared.bpf import BpfMap, BpfObject, Kind, MapType, Run, TracedPath, load_traced
from achelous_shared.bpf.ringbuf import RingBuffer
from achelous_shared.tracing import view
from achelous_vswitch.lease import lease_of
from achelous_vswitch.tracer import COPIES

pytestmark = pytest.mark.kernel

A, B, C, AWAY, NOWHERE = "10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.0.99", "10.0.0.200"
OTHER_SUBNET: Final = "10.0.1.9"
A6, B6 = "fd00::5", "fd00::6"
SCRATCH: Final = ("packet_scratches", "reply_scratch", "session_blank")
DENY_81: Final = Rule(proto=6, ports=(81, 81), allow=False, priority=10)
DENY_9: Final = Rule(proto=17, ports=(9, 9), allow=False, priority=10)
ANY: Final = (Rule(), Rule("::/0"))


@pytest.fixture(scope="session")
def second(vswitch: BpfObject, objects: Path) -> Iterator[TracedPath]:
    """The traced programs over the maps of the object that all tests share."""
    traced = load_traced(objects / "vswitch.trace.o", vswitch.maps, COPIES)
    yield traced
    traced.close()


@dataclass(slots=True)
class Bench:
    """Two vNICs of one subnet, one that nothing may reach, and a route to another host."""

    path: Datapath
    traced: TracedPath
    a: Port
    b: Port
    closed: Port

    def trace(self, data: bytes, *, sender: Port | None, room: int = 64) -> Run:
        """A frame of a guest, or with None of the underlay; asserts that nothing changed."""
        if sender is not None:
            self.path.table("port_by_ifindex").update(LOOPBACK, sender.slot)
        before = state(self.path.loaded)
        program = "from_underlay" if sender is None else "from_guest"
        run = self.traced.run(program, data, LOOPBACK, {"sessions": room})
        assert state(self.path.loaded) == before
        return run

    def agree(self, data: bytes, *, sender: Port | None, room: int = 64) -> tuple[Run, Outcome]:
        """Trace a frame, then let it happen; asserts that it went as foretold."""
        foretold = self.trace(data, sender=sender, room=room)
        real = self.path.receive(data) if sender is None else self.path.send(sender, data)
        assert (foretold.verdict, foretold.frame) == (real.verdict, real.frame)
        assert counted(foretold, self.traced) == total(real)
        return foretold, real


@pytest.fixture
def bench(datapath: Datapath, second: TracedPath) -> Bench:
    a = datapath.port(A, ip6=A6, allow_out=(DENY_9, *ANY), allow_in=(DENY_81, *ANY))
    b = datapath.port(B, ip6=B6, allow_in=(DENY_81, *ANY))
    closed = datapath.port(C, allow_in=())
    datapath.route(AWAY, PEER_VTEP)
    give(datapath, a, lease_of(desired(GA)))
    return Bench(datapath, second, a, b, closed)


def state(loaded: BpfObject) -> dict[str, bytes]:
    """Everything that the maps of a loaded object hold, but for what a run reads of no other."""
    return {
        name: _held(table)
        for name, table in loaded.maps.items()
        if name[0] != "." and name not in SCRATCH
    }


def _held(table: BpfMap) -> bytes:
    match table.type:
        case MapType.ARRAY:
            return table.mmap().tobytes()
        case MapType.RINGBUF:
            ring = RingBuffer(table, np.dtype("u1"))
            return bytes(ring._produced) + bytes(ring._consumed)
        case MapType.PROG_ARRAY:
            return b""
        case _:
            keys, values = table.lookup_batch_all()
            rows = zip(keys, values, strict=True)
            return b"".join(sorted(key.tobytes() + value.tobytes() for key, value in rows))


def total(real: Outcome) -> dict[str, int]:
    """What all slots counted together."""
    found: dict[str, int] = {}
    for gained in real.counted.values():
        for name, count in gained.items():
            found[name] = found.get(name, 0) + count
    return found


def counted(run: Run, traced: TracedPath) -> dict[str, int]:
    """Likewise of a trace."""
    plain = (
        "tx_packets", "tx_bytes", "rx_packets", "rx_bytes", "local", "direct", "relayed",
        "slow_path", "learn_events",
    )  # fmt: skip
    drops = {
        traced.reasons[number][0].upper(): int(run.counted["drops"][number])
        for number in np.flatnonzero(run.counted["drops"])
    }
    return {name: int(run.counted[name]) for name in plain if run.counted[name]} | drops


GA: Final = guest(A)
SIX: Final = Guest(A6, GA.mac)
SOLICIT: Final = (UDP(sport=546, dport=547), DHCP6_Solicit(trid=5), DHCP6OptIA_NA(iaid=1))
FROM_GUEST: Final[dict[str, bytes]] = {
    "same host": frame(GA, B, tcp()),
    "denied in": frame(GA, B, tcp(dport=81)),
    "denied out": frame(GA, B, udp(dport=9)),
    "no rule": frame(GA, C, udp()),
    "direct": frame(GA, AWAY, udp()),
    "relayed": frame(GA, NOWHERE, tcp()),
    "routed": frame(GA, OTHER_SUBNET, tcp()),
    "itself": frame(GA, A, udp()),
    "spoofed IP": frame(Guest("10.0.0.66", GA.mac), B, udp()),
    "spoofed MAC": frame(Guest(A, guest(B).mac), B, udp()),
    "multicast": frame(GA, "224.0.0.9", udp()),
    "broadcast": frame(GA, "10.0.0.255", udp()),
    "ping": frame(GA, B, ping()),
    "ping of the router": frame(GA, "10.0.0.1", ping()),
    "to the router": frame(GA, "10.0.0.1", tcp()),
    "traceroute to the router": frame(GA, "10.0.0.1", udp()),
    "TTL 1": frame(GA, OTHER_SUBNET, udp(), ttl=1),
    "TTL 1 on the link": frame(GA, B, udp(), ttl=1),
    "too big": frame(GA, AWAY, udp(payload=bytes(1480))),
    "cut short": frame(GA, B, udp())[:38],
    "options": frame(GA, B, udp(), options=[b"\x01" * 8]),
    "first fragment": frame(GA, B, udp(), flags="MF"),
    "later fragment": frame(GA, B, b"x" * 32, proto=17, frag=4),
    "reset": frame(GA, B, tcp("R")),
    "mid-stream": frame(GA, B, tcp("A")),
    "IPv6": frame(SIX, B6, tcp()),
    "IPv6 denied": frame(SIX, B6, tcp(dport=81)),
    "IPv6 ping": frame(SIX, B6, ping6()),
    "IPv6 extension": frame(SIX, B6, IPv6ExtHdrDestOpt(), udp()),
    "IPv6 relayed": frame(SIX, "fd00::99", udp()),
    "IPv6 hop limit": frame(SIX, "fd01::9", udp(), hlim=1),
    "ND": frame(SIX, "ff02::1:ff00:6", ICMPv6ND_NS(tgt=B6), dst="33:33:ff:00:00:06"),
    "RS": to_all(GA, "ff02::2", ICMPv6ND_RS()),
    "DHCPv6": to_all(GA, "ff02::1:2", *SOLICIT),
    "ARP": arp_request(GA, "10.0.0.1"),
    "ARP off the subnet": arp_request(GA, "10.9.9.9"),
    "DHCP": dhcp(GA, [("message-type", "discover"), "end"]),
    "unrelated ICMP error": frame(GA, B, ICMP(type=3, code=1), IP(src=B, dst=A) / UDP()),
    "nothing known": bytes(12) + b"\x88\xcc" + bytes(20),
}  # fmt: skip


def arriving(
    inner: bytes, *, to: str = A, vtep: str = PEER_VTEP, vni: int = VNI, **outer: Any
) -> bytes:
    """The frame comes from another host for the guest of an address."""
    return vxlan(inner, vteps=(vtep, OWN_VTEP), vni=vni, dmac=guest(to).mac, **outer)


GAWAY: Final = guest(AWAY)
FROM_UNDERLAY: Final[dict[str, bytes]] = {
    "admitted": arriving(frame(GAWAY, A, tcp())),
    "denied": arriving(frame(GAWAY, A, tcp(dport=81))),
    "no rule": arriving(frame(GAWAY, C, tcp()), to=C),
    "with an identity": arriving(frame(GAWAY, A, udp()), identity=7),
    "relayed": arriving(frame(GAWAY, A, udp()), vtep=GATEWAY_VTEP),
    "unknown VTEP": arriving(frame(GAWAY, A, udp()), vtep="198.18.0.77"),
    "unknown VNI": arriving(frame(GAWAY, A, udp()), vni=9),
    "nobody here": arriving(frame(GAWAY, NOWHERE, udp()), to=NOWHERE),
    "foreign MAC": arriving(frame(GAWAY, A, udp()), to=B),
    "one of our own": arriving(frame(guest(B), A, udp())),
    "no flag I": arriving(frame(GAWAY, A, udp()), flags=0),
    "congestion": arriving(frame(GAWAY, A, udp()), tos=3),
    "not for us": bytes(Ether() / IP(dst="198.18.0.9") / UDP()),
}  # fmt: skip


@pytest.mark.parametrize("name", FROM_GUEST)
def test_a_guests_frame_meets_what_was_foretold(bench: Bench, name: str) -> None:
    bench.agree(FROM_GUEST[name], sender=bench.a)
    bench.agree(FROM_GUEST[name], sender=bench.a)  # its session and fragment are there now


@pytest.mark.parametrize("name", FROM_UNDERLAY)
def test_an_arriving_frame_meets_what_was_foretold(bench: Bench, name: str) -> None:
    bench.agree(FROM_UNDERLAY[name], sender=None)
    bench.agree(FROM_UNDERLAY[name], sender=None)


def test_garbled_frames_meet_what_was_foretold(bench: Bench) -> None:
    """Each a frame of the tables with some bytes changed; a failure names its seed."""
    for seed in range(150):
        chosen = random.Random(seed)  # noqa: S311 - no secret
        from_guest = chosen.random() < 0.7
        data = bytearray(chosen.choice([*(FROM_GUEST if from_guest else FROM_UNDERLAY).values()]))
        for _ in range(chosen.randint(1, 4)):
            data[chosen.randrange(12, min(len(data), 110))] = chosen.randrange(256)
        try:
            bench.agree(bytes(data), sender=bench.a if from_guest else None)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {data.hex()}") from error


def test_a_session_answers_for_the_rules_that_admitted_it(bench: Bench) -> None:
    bench.path.send(bench.closed, frame(guest(C), A, udp(7, 8)))
    answer, _ = bench.agree(frame(GA, C, udp(8, 7)), sender=bench.a)
    assert not [step for step in answer.steps if step.kind is Kind.RULE and not step.found]
    [session] = [step for step in answer.steps if step.table == "sessions"]
    shown = view(bench.traced, session)
    assert shown.age_s is not None
    assert 0 < shown.age_s < 60
    assert (shown.key["ip"], shown.key["proto"]) == ([A, C], 17)


def test_a_revoked_rule_ends_a_session_as_foretold(bench: Bench) -> None:
    data = frame(GA, B, tcp())
    bench.path.send(bench.a, data)
    bench.path.allow(bench.b, into=())
    run, real = bench.agree(data, sender=bench.a)
    assert real.dropped == f"{bench.a.slot}:ACL_INGRESS"
    assert Kind.DELETE in [step.kind for step in run.steps]


def full(bench: Bench) -> int:
    """Fill the live session table with one guest's established sessions; the room left."""
    sessions = bench.path.table("sessions")
    for port in range(sessions.max_entries):
        bench.path.send(bench.a, frame(GA, B, udp(2000 + port, 1)))
        bench.path.send(bench.b, frame(guest(B), A, udp(1, 2000 + port)))
    return sessions.max_entries - len(bench.path.sessions())


@pytest.mark.parametrize("old", [False, True], ids=["all alive", "some have ended"])
def test_a_full_table_is_foretold(bench: Bench, old: bool) -> None:
    room = full(bench)
    if old:
        bench.path.age_sessions(1000)
    _, real = bench.agree(frame(GA, B, udp(9, 10)), sender=bench.a, room=room)
    assert real.dropped == (None if old else f"{bench.a.slot}:SESSION_TABLE_FULL")


def test_a_vnics_limit_is_foretold(bench: Bench) -> None:
    bench.path.configure(session_limit=2)
    for port in (1, 2):
        bench.agree(frame(GA, B, udp(port, port)), sender=bench.a)
    _, real = bench.agree(frame(GA, B, udp(3, 3)), sender=bench.a)
    assert real.dropped == f"{bench.a.slot}:SESSION_LIMIT"


def test_who_may_make_no_more_errors_is_foretold(bench: Bench) -> None:
    data = FROM_GUEST["TTL 1"]
    for _ in range(3):
        bench.agree(data, sender=bench.a)


@pytest.mark.parametrize("change", [None, lambda path: path.forget(AWAY)], ids=["same", "forgot"])
def test_the_route_that_a_session_knows_is_shown(
    bench: Bench, change: Callable[[Datapath], None] | None
) -> None:
    data = frame(GA, AWAY, udp())
    bench.path.send(bench.a, data)
    if change is not None:
        change(bench.path)
    run, _ = bench.agree(data, sender=bench.a)
    [route] = [view(bench.traced, step) for step in run.steps if step.table == "fc"]
    assert (route.entry["ip"], route.entry["vtep"]) == (AWAY, PEER_VTEP)
    assert route.generation == (1 if change is None else 2)


def test_a_frame_of_no_possible_length_is_refused_by_the_kernel(bench: Bench) -> None:
    with pytest.raises(OSError, match="run program from_guest on 5 bytes"):
        bench.trace(bytes(5), sender=bench.a)
