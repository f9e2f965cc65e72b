"""Packets as a person writes them, and as a capture holds them."""

import struct
from pathlib import Path
from typing import Final

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap, wrpcapng

from achelous_cli import packets
from achelous_cli.main import run
from achelous_cli.packets import NoPacket, Shape
from achelous_shared.names import ROUTER_MAC

MAC: Final = bytes.fromhex("020000000001")
SYN: Final = Shape(flags=2, ttl=64, size=None)
ROUTER: Final = ROUTER_MAC.hex(":")


def written(text: str, shape: Shape = SYN) -> bytes:
    return packets.frame_of(packets.parse_flow(text), MAC, shape)


def ether(packet: Ether, dst: str = ROUTER) -> bytes:
    """What scapy makes of these layers, checksums included."""
    return bytes(Ether(dst=dst, src=MAC.hex(":")) / packet)


def v4(protocol: int, to: str = "10.0.1.9") -> IP:
    return IP(src="10.0.0.5", dst=to, id=0, flags="DF", ttl=64, proto=protocol)


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        ("tcp 10.0.0.5:4321 > 10.0.1.9:443",
         ether(v4(6) / TCP(sport=4321, dport=443, seq=1, window=64240))),
        ("UDP 10.0.0.5:53>10.0.1.9:53", ether(v4(17) / UDP(sport=53, dport=53))),
        ("icmp 10.0.0.5 > 10.0.1.9", ether(v4(1) / ICMP(id=1, seq=1))),
        ("tcp [fd00::5]:1 > [fd00::9]:2",
         ether(IPv6(src="fd00::5", dst="fd00::9") / TCP(sport=1, dport=2, seq=1, window=64240))),
        ("icmp fd00::5 > fd00::9",
         ether(IPv6(src="fd00::5", dst="fd00::9") / ICMPv6EchoRequest(id=1, seq=1))),
        ("icmp [fd00::5] > [ff02::1]",
         ether(IPv6(src="fd00::5", dst="ff02::1") / ICMPv6EchoRequest(id=1, seq=1),
               "33:33:00:00:00:01")),
        ("udp 10.0.0.5:1 > 224.0.0.251:5353",
         ether(v4(17, "224.0.0.251") / UDP(sport=1, dport=5353), "01:00:5e:00:00:fb")),
        ("udp 10.0.0.5:68 > 255.255.255.255:67",
         ether(v4(17, "255.255.255.255") / UDP(sport=68, dport=67), "ff:ff:ff:ff:ff:ff")),
    ],
)  # fmt: skip
def test_a_flow_is_the_frame_that_its_guest_would_send(text: str, frame: bytes) -> None:
    assert written(text) == frame


def test_flags_hop_limit_and_size_are_as_asked() -> None:
    made = written("tcp 10.0.0.5:1 > 10.0.1.9:2", Shape(packets.parse_flags("sa"), 1, 101))
    read = Ether(made)
    assert (read[TCP].flags, read[IP].ttl, read[IP].len, len(made)) == ("SA", 1, 101, 115)
    check = read[TCP].chksum
    del read[TCP].chksum
    assert Ether(bytes(read))[TCP].chksum == check


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("tcp nonsense", "write it as PROTOCOL ADDRESS:PORT > ADDRESS:PORT"),
        ("tcp 10.0.0.5:1 < 10.0.1.9:2", "write it as"),
        ("sctp 10.0.0.5:1 > 10.0.1.9:2", "take one of tcp, udp, icmp"),
        ("tcp 10.0.0.5 > 10.0.1.9:2", "needs a port from 1 to 65535, as in 10.0.0.5:443"),
        ("tcp 10.0.0.5:1 > 10.0.1.9:65536", "needs a port"),
        ("tcp 10.0.0.5:1 > 10.0.1.9:０", "needs a port"),  # noqa: RUF001 - a digit of another kind
        ("tcp fd00::5 > [fd00::9]:2", "as in [fd00::5]:443"),
        ("tcp 10.0.0.5:1 > [fd00::9]:2", "both have to be IPv4 or IPv6"),
        ("tcp 10.0.0.500:1 > 10.0.1.9:2", "names no address"),
        ("icmp 10.0.0.5:1 > 10.0.1.9", "icmp has no ports"),
    ],
)
def test_what_is_no_packet_is_refused_with_what_would_be(text: str, hint: str) -> None:
    with pytest.raises(NoPacket) as told:
        packets.parse_flow(text)
    assert hint in str(told.value)


def test_flags_and_sizes_that_no_packet_has_are_refused() -> None:
    with pytest.raises(NoPacket, match="letters of FSRPAUEC"):
        packets.parse_flags("SX")
    for size in (39, 2987):
        with pytest.raises(NoPacket, match="has to be 40 to 2986"):
            written("tcp 10.0.0.5:1 > 10.0.1.9:2", Shape(2, 64, size))


def test_a_frame_comes_out_of_a_capture_by_its_number(tmp_path: Path) -> None:
    frames = [written("udp 10.0.0.5:1 > 10.0.1.9:2"), written("icmp 10.0.0.5 > 10.0.1.9")]
    capture = tmp_path / "a.pcap"
    wrpcap(str(capture), [Ether(each) for each in frames])
    assert [packets.frame_in(capture, number) for number in (1, 2)] == frames
    with pytest.raises(NoPacket, match="holds 2 frames: there is no number 3"):
        packets.frame_in(capture, 3)


def test_captures_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    frame = written("icmp 10.0.0.5 > 10.0.1.9")
    newer = tmp_path / "new"
    wrpcapng(str(newer), [Ether(frame)])
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    cut = tmp_path / "cut"
    cut.write_bytes(head + struct.pack("<IIII", 0, 0, 20, len(frame)) + frame[:20])
    cooked = tmp_path / "cooked"
    cooked.write_bytes(head[:20] + struct.pack("<I", 113))
    for path, why in (
        (newer, "editcap -F pcap"),
        (cut, "capture it whole"),
        (cooked, "link type 113"),
        (tmp_path / "none", "can not be read"),
    ):
        with pytest.raises(NoPacket, match=why):
            packets.frame_in(path, 1)


@pytest.mark.parametrize(
    "args",
    [
        ["h1/10.0.0.5"],
        ["h1/10.0.0.5", "tcp 10.0.0.5:1 > 10.0.1.9:2", "--pcap", "x"],
        ["h1/10.0.0.5", "tcp 10.0.0.5:1 > 10.0.1.9:2", "--flags", "Q"],
        ["h1/10.0.0.5", "tcp 10.0.0.5:1 > 10.0.1.9:2", "--ttl", "256"],
        ["h1/10.0.0.5", "nothing"],
    ],
)
def test_wrong_usage_is_told_before_anybody_is_asked(args: list[str]) -> None:
    assert run(["trace", *args]) == 2
