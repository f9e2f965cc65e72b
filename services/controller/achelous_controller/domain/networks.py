"""CIDRs and addresses as users write them, and what a subnet may be."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from achelous_shared.names import LINK_LOCAL_ROUTER

RESERVED: Final = tuple(
    IPv4Network(cidr) for cidr in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
)
"""Not for guests: this network, loopback, link-local, multicast and what lies above."""

_NO_ROUTER: Final = 31
"""From this prefix length on every address is a vNIC's."""


def parse_network(text: str) -> IPv4Network:
    """The network that ``text`` names; raises ValueError, which says what would be right."""
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"{text!r} is no network: write an address and a prefix length, as in 10.0.0.0/24"
        ) from None
    if isinstance(network, IPv6Network):
        raise ValueError(f"{text!r} is IPv6, which VPCs do not carry yet: give an IPv4 network")  # noqa: TRY004  it is the text that is wrong
    if "/" not in text:
        raise ValueError(f"{text!r} lacks a prefix length: write {network} for the one address")
    if not text.partition("/")[2].isdigit():
        raise ValueError(f"{text!r} has no prefix length in decimal: write {network}")
    address = IPv4Address(text.partition("/")[0])
    if address != network.network_address:
        raise ValueError(f"{text} has bits set after its prefix: the network is {network}")
    return network


def parse_address(text: str) -> IPv4Address:
    """The address that ``text`` names; raises ValueError, which says what would be right."""
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is no IPv4 address: write one as in 10.0.0.7") from None
    if isinstance(address, IPv6Address):
        raise ValueError(f"{text!r} is IPv6, which is not supported yet: give an IPv4 address")  # noqa: TRY004  it is the text that is wrong
    return address


def check_usable(network: IPv4Network) -> IPv4Network:
    """``network``, if all of it is unicast; raises ValueError."""
    for reserved in RESERVED:
        if network.overlaps(reserved):
            raise ValueError(
                f"{network} overlaps {reserved}, which is not for guests: take a network of"
                " unicast addresses such as 10.0.0.0/24"
            )
    return network


def assignable(network: IPv4Network) -> tuple[int, int]:
    """First and last address of ``network`` that a vNIC or router can have, as integers."""
    first, last = int(network.network_address), int(network.broadcast_address)
    return (first, last) if network.prefixlen >= _NO_ROUTER else (first + 1, last - 1)


def router_of(network: IPv4Network, named: IPv4Address | None) -> IPv4Address:
    """The router's address of a subnet, when the request named ``named`` or none.

    Raises ValueError. /31 and /32 have no address to spare: their router is link-local.
    """
    if network.prefixlen >= _NO_ROUTER:
        if named is not None:
            raise ValueError(
                f"{network} has no address to spare for a router: leave gateway_ip out and"
                f" {LINK_LOCAL_ROUTER} is used"
            )
        return IPv4Address(LINK_LOCAL_ROUTER)
    first, last = assignable(network)
    if named is None:
        return IPv4Address(first)
    if not first <= int(named) <= last:
        raise ValueError(
            f"{named} is none of the addresses {IPv4Address(first)} to {IPv4Address(last)} of"
            f" {network}"
        )
    return named


def why_not_assignable(
    address: IPv4Address, network: IPv4Network, router: IPv4Address
) -> str | None:
    """Why a vNIC cannot have ``address`` in a subnet; None if it can."""
    if address not in network:
        return f"{address} is not in the subnet {network}"
    if address == router:
        return f"{address} is the router's address of the subnet {network}"
    first, last = assignable(network)
    if not first <= int(address) <= last:
        kind = "network" if address == network.network_address else "broadcast"
        return (
            f"{address} is the {kind} address of the subnet {network}: take one of"
            f" {IPv4Address(first)} to {IPv4Address(last)}"
        )
    return None
