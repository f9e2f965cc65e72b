"""A gateway answers its hosts' probes in eBPF, with the age of its agent's heartbeat."""

import struct
from typing import Any

import pytest
from packets.datapath import GATEWAY_VTEP, OWN_VTEP
from packets.frames import UNDERLAY_MACS
from packets.gateway_path import OTHER_GATEWAY, GatewayPath
from packets.outcome import Verdict
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

pytestmark = pytest.mark.kernel

PROBE = struct.Struct("!IBBHIIQ")
MAGIC = 0x41434850
AGE_AT = 14 + 20 + 8 + 12
NEVER = 0xFFFFFFFF


def payload(
    magic: int = MAGIC, version: int = 1, kind: int = 1, age: int = 0, sequence: int = 42
) -> bytes:
    return PROBE.pack(magic, version, kind, 0, sequence, age, 0x1122334455667788)


def probe(data: bytes, sender: str = OWN_VTEP, **fields: Any) -> bytes:
    """A probe as a host's kernel sends it; `fields` of its UDP header."""
    ether = Ether(dst=UNDERLAY_MACS[0], src=UNDERLAY_MACS[1])
    return bytes(
        ether / IP(src=sender, dst=GATEWAY_VTEP) / UDP(sport=40_000, dport=4798, **fields) / data
    )


def answer(age: int, **fields: Any) -> bytes:
    ether = Ether(dst=UNDERLAY_MACS[1], src=UNDERLAY_MACS[0])
    header = IP(src=GATEWAY_VTEP, dst=OWN_VTEP) / UDP(sport=4798, dport=40_000, **fields)
    return bytes(ether / header / payload(kind=2, age=age))


def age_in(frame: bytes) -> int:
    return int.from_bytes(frame[AGE_AT : AGE_AT + 4], "big")


@pytest.mark.parametrize("checksum", [{}, {"chksum": 0}], ids=["with checksum", "without"])
def test_a_probe_is_turned_round(gateway: GatewayPath, checksum: dict[str, Any]) -> None:
    gateway.heartbeat(seconds_ago=5)
    outcome = gateway.receive(probe(payload(), **checksum))
    assert outcome.verdict is Verdict.REDIRECT
    assert outcome.frame == answer(age_in(outcome.frame), **checksum)
    assert outcome.counted == {0: {"probes": 1}}


@pytest.mark.parametrize(
    ("seconds", "low", "high"),
    [(0, 0, 1000), (5, 5000, 6000), (-5, 0, 0)],
    ids=["fresh", "old", "renewed meanwhile"],
)
def test_the_answer_has_the_heartbeats_age_in_ms(
    gateway: GatewayPath, seconds: int, low: int, high: int
) -> None:
    gateway.heartbeat(seconds_ago=seconds)
    assert low <= age_in(gateway.receive(probe(payload())).frame) <= high


def test_an_age_that_does_not_fit_is_the_greatest(gateway: GatewayPath) -> None:
    gateway.heartbeat(seconds_ago=0)
    view = gateway.table("config").mmap()
    view[0]["heartbeat_ns"] = (int(view[0]["heartbeat_ns"]) - (NEVER + 1) * 10**6) % 2**64
    assert age_in(gateway.receive(probe(payload())).frame) == NEVER


def test_a_gateway_that_never_vouched_for_its_tables_says_so(gateway: GatewayPath) -> None:
    assert age_in(gateway.receive(probe(payload())).frame) == NEVER


BAD = {
    "another magic": payload(magic=MAGIC + 1),
    "another version": payload(version=2),
    "an answer": payload(kind=2),
    "no type": payload(kind=0),
    "too short": payload()[:-1],
    "too long": payload() + b"\0",
    "empty": b"",
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_a_bad_probe_is_counted(gateway: GatewayPath, data: bytes) -> None:
    outcome = gateway.receive(probe(data))
    assert (outcome.verdict, outcome.counted) == (Verdict.DROP, {0: {"BAD_PROBE": 1}})


@pytest.mark.parametrize(
    ("sender", "reason"),
    [(OTHER_GATEWAY, "GATEWAY_LOOP"), ("198.18.0.99", "UNKNOWN_VTEP")],
)
def test_only_hosts_of_the_fleet_are_answered(
    gateway: GatewayPath, sender: str, reason: str
) -> None:
    outcome = gateway.receive(probe(payload(), sender))
    assert (outcome.verdict, outcome.counted) == (Verdict.DROP, {0: {reason: 1}})
