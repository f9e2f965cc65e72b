"""Names and constants that services agree on without asking each other."""

from typing import Final
from uuid import UUID

ROUTER_MAC: Final = bytes.fromhex("0eace1000001")
"""Answers every ARP request of a guest and is the source of every frame that a guest receives.

One locally administered MAC for all: a guest's neighbour table stays right when a peer moves.
"""

ROUTER_LINK_LOCAL: Final = "fe80::cac:e1ff:fe00:1"
"""The source of router advertisements and DHCPv6: `ROUTER_MAC` as EUI-64 (RFC 4291, appendix A)."""

VNI_MIN: Final = 1
VNI_MAX: Final = (1 << 24) - 1

LINK_LOCAL_ROUTER: Final = "169.254.1.1"
"""The router of /31 and /32 subnets, which have no address to spare for one."""

GUEST_MTU: Final = 1500

GATEWAY_SHARDS: Final = 64
"""A VPC is in the shard of its VNI modulo this, and each gateway serves some shards or all: C's
ACH_GATEWAY_SHARDS."""


def port_ifname(vnic_id: UUID) -> str:
    """The host's device of a vNIC, 13 characters: the hypervisor makes it, the agent binds it."""
    return "v" + vnic_id.hex[-12:]
