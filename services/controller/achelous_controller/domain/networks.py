"""CIDRs and addresses as users write them, and what a subnet may be."""

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

from achelous_shared.names import LINK_LOCAL_ROUTER

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

RESERVED: Final = tuple(
    IPv4Network(cidr) for cidr in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
)
"""Not for guests: this network, loopback, link-local, multicast and what lies above."""

UNICAST6: Final = (IPv6Network("2000::/3"), IPv6Network("fc00::/7"))
"""For guests: global unicast (RFC 4291) and unique local (RFC 4193).

All of it lies above the IPv4 mapped addresses, so that a VPC's addresses are in the same order as
16 bytes and as PostgreSQL sorts them.
"""

_NO_ROUTER: Final = 31
"""From this prefix length on every IPv4 address is a vNIC's."""


def parse_any_network(text: str) -> Network:
    """The network that ``text`` names; raises ValueError, which says what would be right."""
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"{text!r} is no network: write an address and a prefix length, as in 10.0.0.0/24"
            " or 2001:db8::/64"
        ) from None
    if "%" in text:
        raise ValueError(f"{text!r} has a zone, which means nothing here: leave it out")
    if "/" not in text:
        raise ValueError(f"{text!r} lacks a prefix length: write {network} for the one address")
    if not text.partition("/")[2].isdigit():
        raise ValueError(f"{text!r} has no prefix length in decimal: write {network}")
    if ip_address(text.partition("/")[0]) != network.network_address:
        raise ValueError(f"{text} has bits set after its prefix: the network is {network}")
    return network


def parse_network(text: str) -> IPv4Network:
    """Like `parse_any_network`, of IPv4 alone."""
    network = parse_any_network(text)
    if isinstance(network, IPv6Network):
        raise ValueError(f"{text!r} is IPv6, which is not possible here: give an IPv4 network")  # noqa: TRY004  it is the text that is wrong
    return network


def parse_network6(text: str) -> IPv6Network:
    """Like `parse_any_network`, of IPv6 alone."""
    network = parse_any_network(text)
    if isinstance(network, IPv4Network):
        raise ValueError(f"{text!r} is IPv4: give an IPv6 network, as in 2001:db8::/64")  # noqa: TRY004  it is the text that is wrong
    return network


def parse_any_address(text: str) -> Address:
    """The address that ``text`` names; raises ValueError, which says what would be right."""
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no IPv4 or IPv6 address: write one as in 10.0.0.7 or 2001:db8::7"
        ) from None
    if "%" in text:
        raise ValueError(f"{text!r} has a zone, which means nothing here: leave it out")
    return address


def parse_address(text: str) -> IPv4Address:
    """Like `parse_any_address`, of IPv4 alone."""
    address = parse_any_address(text)
    if isinstance(address, IPv6Address):
        raise ValueError(f"{text!r} is IPv6, which is not possible here: give an IPv4 address")  # noqa: TRY004  it is the text that is wrong
    return address


def parse_address6(text: str) -> IPv6Address:
    """Like `parse_any_address`, of IPv6 alone."""
    address = parse_any_address(text)
    if isinstance(address, IPv4Address):
        raise ValueError(f"{text!r} is IPv4: give an IPv6 address, as in 2001:db8::7")  # noqa: TRY004  it is the text that is wrong
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


def check_usable6(network: IPv6Network) -> IPv6Network:
    """``network``, if all of it is unicast; raises ValueError."""
    if not any(network.subnet_of(unicast) for unicast in UNICAST6):
        raise ValueError(
            f"{network} is not for guests: take a network of 2000::/3 or fc00::/7, such as"
            " fd00:1::/64"
        )
    return network


def check_remote(network: Network) -> Network:
    """``network``, if it can be the other side of a rule; raises ValueError.

    ::/0 is all of IPv6. What else begins with three zero bits holds no vNIC, but it may hold the
    IPv4 mapped addresses, as which IPv4 is written in a rule.
    """
    if (
        isinstance(network, IPv6Network)
        and network.prefixlen
        and network.overlaps(IPv6Network("::/3"))
    ):
        raise ValueError(
            f"{network} holds no address of a VPC: write ::/0 for all of IPv6, or an IPv4 network"
        )
    return network


def assignable(network: Network) -> tuple[int, int]:
    """First and last address of ``network`` that a vNIC or router can have, as integers.

    IPv6 has no broadcast address, and a subnet's first is every router's (RFC 4291, 2.6.1).
    """
    first, last = int(network.network_address), int(network.broadcast_address)
    if isinstance(network, IPv6Network):
        return first + 1, last
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
    return IPv4Address(_router(network, named))


def router6_of(network: IPv6Network | None, named: IPv6Address | None) -> IPv6Address | None:
    """The IPv6 router's address of a subnet; None without an IPv6 network. Raises ValueError."""
    if network is None:
        if named is not None:
            raise ValueError("the subnet has no IPv6 network: give cidr6, too, or leave it out")
        return None
    return IPv6Address(_router(network, named))


def _router(network: Network, named: Address | None) -> int:
    first, last = assignable(network)
    if named is None:
        return first
    if not first <= int(named) <= last:
        raise ValueError(
            f"{named} is none of the addresses {network.network_address + 1} to"
            f" {network.network_address + (last - int(network.network_address))} of {network}"
        )
    return int(named)


def why_not_assignable(address: Address, network: Network, router: Address) -> str | None:
    """Why a vNIC cannot have ``address`` in a subnet; None if it can."""
    if address not in network:
        return f"{address} is not in the subnet {network}"
    if address == router:
        return f"{address} is the router's address of the subnet {network}"
    first, last = assignable(network)
    if not first <= int(address) <= last:
        kind = "network" if address == network.network_address else "broadcast"
        if isinstance(network, IPv6Network):
            kind = "subnet-router anycast"
        base = int(network.network_address)
        return (
            f"{address} is the {kind} address of the subnet {network}: take one of"
            f" {network.network_address + (first - base)} to"
            f" {network.network_address + (last - base)}"
        )
    return None
