"""Headers in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet

from achelous_shared.frames import summary

A, B = "10.0.0.5", "10.0.1.9"
A6, B6 = "fd00::5", "fd00::9"
MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
INNER = Ether(**MACS) / IP(src=A, dst=B) / TCP(sport=4321, dport=443, flags="S")

CASES: dict[str, Packet] = {
    "tcp 10.0.0.5:4321 > 10.0.1.9:443 S": INNER,
    "tcp 10.0.0.5:4321 > 10.0.1.9:443 RA": Ether(**MACS)
    / IP(src=A, dst=B, options=b"\x01\x01\x01\x00")
    / TCP(sport=4321, dport=443, flags="RA"),
    "udp 10.0.0.5:53 > 10.0.1.9:5353": Ether(**MACS) / IP(src=A, dst=B) / UDP(sport=53, dport=5353),
    "icmp 10.0.0.5 > 10.0.1.9 type 8 code 0": Ether(**MACS) / IP(src=A, dst=B) / ICMP(),
    "protocol 47 10.0.0.5 > 10.0.1.9": Ether(**MACS) / IP(src=A, dst=B, proto=47),
    "udp 10.0.0.5 > 10.0.1.9 fragment at 1480": Ether(**MACS)
    / IP(src=A, dst=B, proto=17, frag=185),
    "udp [fd00::5]:1 > [fd00::9]:2": Ether(**MACS) / IPv6(src=A6, dst=B6) / UDP(sport=1, dport=2),
    "icmp6 fd00::5 > fd00::9 type 128 code 0": Ether(**MACS)
    / IPv6(src=A6, dst=B6)
    / ICMPv6EchoRequest(),
    "arp 10.0.0.5 asks for 10.0.1.9": Ether(**MACS) / ARP(psrc=A, pdst=B),
    "ethertype 0x88cc 02:00:00:00:00:01 > 02:00:00:00:00:02": Ether(**MACS, type=0x88CC),
    "vxlan 198.18.0.1 > 198.18.0.2 vni 7: tcp 10.0.0.5:4321 > 10.0.1.9:443 S": Ether(**MACS)
    / IP(src="198.18.0.1", dst="198.18.0.2")
    / UDP(sport=50000, dport=4789)
    / VXLAN(vni=7, flags=8)
    / INNER,
}


@pytest.mark.parametrize("text", CASES)
def test_a_frame_is_said_in_one_line(text: str) -> None:
    assert summary(bytes(CASES[text])) == text


@given(st.binary(max_size=128))
def test_any_bytes_are_said(frame: bytes) -> None:
    assert summary(frame).isprintable()


@pytest.mark.parametrize("text", CASES)
def test_any_cut_is_said(text: str) -> None:
    whole = bytes(CASES[text])
    assert all(summary(whole[:length]).isprintable() for length in range(len(whole)))
