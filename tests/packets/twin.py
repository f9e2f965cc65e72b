"""What the packet path computes, said again in Python: to be compared with."""

from ipaddress import IPv4Address
from typing import Final

GATEWAY_SLOTS: Final = 1024
_GOLDEN: Final = 0x9E3779B1
_MASK: Final = 0xFFFFFFFF


def destination_hash(vni: int, ip: bytes) -> int:
    """ach_hash of ach_addr.h: 32 bits of a VNI and 16 address bytes."""
    mixed = vni * _GOLDEN & _MASK
    for at in range(0, 16, 4):
        mixed = (mixed ^ int.from_bytes(ip[at : at + 4], "big")) * _GOLDEN & _MASK
        mixed ^= mixed >> 15
    mixed = (mixed ^ mixed >> 16) * 0x85EBCA6B & _MASK
    mixed = (mixed ^ mixed >> 13) * 0xC2B2AE35 & _MASK
    return mixed ^ mixed >> 16


def gateway_slot(vni: int, ip: str) -> int:
    """The rendezvous slot of an IPv4 destination."""
    return destination_hash(vni, bytes(10) + b"\xff\xff" + IPv4Address(ip).packed) % GATEWAY_SLOTS
