"""What the packet path computes, said again in Python: to be compared with."""

from ipaddress import IPv4Address
from typing import Final

from achelous_shared.names import GATEWAY_SHARDS
from achelous_shared.rsp_hash import destination_hash

GATEWAY_SLOTS: Final = 1024


def gateway_slot(vni: int, ip: str) -> int:
    """The rendezvous slot of an IPv4 destination, in the row of its VPC's shard."""
    mixed = destination_hash(vni, bytes(10) + b"\xff\xff" + IPv4Address(ip).packed)
    return vni % GATEWAY_SHARDS * GATEWAY_SLOTS + mixed % GATEWAY_SLOTS
