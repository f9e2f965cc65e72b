"""What a guest may not send: each frame gets its counted reason, and nothing else changes."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from packets.datapath import Datapath
from packets.frames import BROADCAST, NO_ADDRESS, Guest, frame, guest, ping, tcp, udp
from packets.outcome import Verdict, run
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

pytestmark = pytest.mark.kernel

ME = guest("10.0.0.5")
NEIGHBOUR = guest("10.0.0.6")
SHORTEST_RUN = 34  # a test run refuses shorter IPv4 frames; test_namespaces.py sends real ones


@dataclass(frozen=True, slots=True)
class Case:
    """A frame of ME, and why it is dropped."""

    frame: bytes
    reason: str


def total_length(length: int) -> bytes:
    return frame(ME, NEIGHBOUR.ip, udp(), len=length)


def raw_ip(first_byte: int) -> bytes:
    sent = bytearray(frame(ME, NEIGHBOUR.ip, udp()))
    sent[14] = first_byte
    return bytes(sent)


def data_offset(words: int) -> bytes:
    sent = bytearray(frame(ME, NEIGHBOUR.ip, tcp()))
    sent[14 + 20 + 12] = words << 4
    return bytes(sent)


def tagged(ethertype: int, vlan: int = 5) -> bytes:
    """A tag in the frame's bytes; test_namespaces.py sends one that the kernel has taken out."""
    sent = frame(ME, NEIGHBOUR.ip, udp())
    return sent[:12] + ethertype.to_bytes(2) + (7 << 13 | vlan).to_bytes(2) + sent[12:]


REFUSED = {
    "another's MAC": Case(frame(Guest(ME.ip, NEIGHBOUR.mac), NEIGHBOUR.ip, udp()), "SPOOFED_MAC"),
    "another's address": Case(
        frame(Guest(NEIGHBOUR.ip, ME.mac), NEIGHBOUR.ip, udp()), "SPOOFED_IP"
    ),
    "no address yet": Case(frame(Guest(NO_ADDRESS, ME.mac), "10.0.0.1", udp()), "SPOOFED_IP"),
    "802.3": Case(bytes(Ether(dst=NEIGHBOUR.mac, src=ME.mac, type=46)) + bytes(46), "ETHERTYPE"),
    "the router's address": Case(
        frame(Guest("10.0.0.1", ME.mac), NEIGHBOUR.ip, udp()), "SPOOFED_IP"
    ),
    "an 802.1Q tag": Case(tagged(0x8100), "ETHERTYPE"),
    "an 802.1ad tag": Case(tagged(0x88A8), "ETHERTYPE"),
    "priority alone": Case(tagged(0x8100, vlan=0), "ETHERTYPE"),
    "multicast": Case(frame(ME, "224.0.0.251", udp(), dst="01:00:5e:00:00:fb"), "MULTICAST"),
    "multicast to a unicast MAC": Case(frame(ME, "239.1.2.3", udp()), "MULTICAST"),
    "limited broadcast": Case(frame(ME, "255.255.255.255", udp(), dst=BROADCAST), "MULTICAST"),
    "the subnet's broadcast": Case(frame(ME, "10.0.0.255", udp()), "MULTICAST"),
    "a group MAC": Case(frame(ME, NEIGHBOUR.ip, udp(), dst="03:00:00:00:00:01"), "MULTICAST"),
    "IP version 6": Case(raw_ip(0x65), "BAD_IP_HEADER"),
    "IHL 4": Case(raw_ip(0x44), "BAD_IP_HEADER"),
    "IHL beyond the frame": Case(raw_ip(0x4F), "TRUNCATED"),
    "total length 0": Case(total_length(0), "TRUNCATED"),
    "total length below the header's": Case(total_length(19), "TRUNCATED"),
    "total length that ends in the UDP header": Case(total_length(27), "TRUNCATED"),
    "total length beyond the frame": Case(total_length(37), "TRUNCATED"),
    "TCP data offset 4": Case(data_offset(4), "TRUNCATED"),
    "TCP data offset beyond the segment": Case(data_offset(6), "TRUNCATED"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_frame_that_a_guest_may_not_send(datapath: Datapath, case: Case) -> None:
    me = datapath.port(ME.ip)
    datapath.port(NEIGHBOUR.ip)
    outcome = datapath.send(me, case.frame)
    reason = "UNSUPPORTED_ETHERTYPE" if case.reason == "ETHERTYPE" else case.reason
    assert outcome.verdict is Verdict.DROP
    assert outcome.counted == {me.slot: {reason: 1}}
    assert len(datapath.sessions()) == 0
    assert datapath.learned() == []


@pytest.mark.parametrize(
    "sent",
    [
        frame(ME, NEIGHBOUR.ip, udp()),
        frame(ME, NEIGHBOUR.ip, tcp(payload=b"data")),
        frame(ME, NEIGHBOUR.ip, ping()),
        frame(ME, NEIGHBOUR.ip, udp(), options=b"\x01" * 40),
    ],
    ids=["UDP", "TCP", "ICMP", "UDP behind IP options"],
)
def test_a_frame_cut_short_anywhere_is_dropped(datapath: Datapath, sent: bytes) -> None:
    me = datapath.port(ME.ip)
    datapath.port(NEIGHBOUR.ip)
    assert datapath.send(me, sent).verdict is Verdict.REDIRECT
    for length in range(SHORTEST_RUN, len(sent)):
        outcome = datapath.send(me, sent[:length])
        assert outcome.verdict is Verdict.DROP, length
        assert outcome.counted == {me.slot: {"TRUNCATED": 1}}, length


def test_no_byte_of_a_frame_can_be_wrong_in_a_way_that_is_not_counted(datapath: Datapath) -> None:
    """Any one byte of the headers inverted: delivered, relayed, or one counted drop."""
    me = datapath.port(ME.ip)
    datapath.port(NEIGHBOUR.ip)
    datapath.configure(learn_interval_ns=0)
    for sent in (frame(ME, NEIGHBOUR.ip, tcp()), frame(ME, NEIGHBOUR.ip, ping())):
        for at in range(14 + 20 + 20):
            broken = bytearray(sent)
            broken[at % len(sent)] ^= 0xFF
            outcome = datapath.send(me, bytes(broken))
            if outcome.verdict is Verdict.DROP:
                assert outcome.dropped is not None, at
            else:
                assert outcome.verdict is Verdict.REDIRECT, at
                assert outcome.counted[me.slot]["tx_packets"] == 1, at


def test_a_device_without_a_vnic_is_counted_for_the_host(datapath: Datapath) -> None:
    outcome = run(datapath.loaded, "from_guest", frame(ME, NEIGHBOUR.ip, udp()))
    assert (outcome.verdict, outcome.counted) == (Verdict.DROP, {0: {"PORT_NOT_READY": 1}})


def test_a_released_port_is_not_ready(datapath: Datapath) -> None:
    me = datapath.port(ME.ip)
    datapath.release(me)
    outcome = datapath.send(me, frame(ME, NEIGHBOUR.ip, udp()))
    assert outcome.counted == {0: {"PORT_NOT_READY": 1}}


def padded(sent: bytes) -> bytes:
    return sent + bytes(60 - len(sent))


@pytest.mark.parametrize(
    "make",
    [
        lambda: frame(ME, NEIGHBOUR.ip, udp(), options=b"\x01" * 40),
        lambda: padded(frame(ME, NEIGHBOUR.ip, udp(payload=b""))),
        lambda: frame(ME, NEIGHBOUR.ip, udp(), dst=NEIGHBOUR.mac),
        lambda: frame(ME, NEIGHBOUR.ip, UDP(sport=1, dport=0)),
        lambda: frame(ME, NEIGHBOUR.ip, IP(src="1.1.1.1", dst="2.2.2.2"), proto=4),
    ],
    ids=["options", "padding", "to the peer's MAC", "port 0", "a protocol without ports"],
)
def test_unusual_frames_that_are_in_order_pass(
    datapath: Datapath, make: Callable[[], bytes]
) -> None:
    me = datapath.port(ME.ip)
    datapath.port(NEIGHBOUR.ip)
    outcome = datapath.send(me, make())
    assert outcome.verdict is Verdict.REDIRECT
    assert outcome.frame[12:] == make()[12:]


def test_the_device_decides_who_the_sender_is(datapath: Datapath) -> None:
    datapath.port(ME.ip)
    neighbour = datapath.port(NEIGHBOUR.ip)
    outcome = datapath.send(neighbour, frame(ME, NEIGHBOUR.ip, udp()))
    assert outcome.dropped == f"{neighbour.slot}:SPOOFED_MAC"
