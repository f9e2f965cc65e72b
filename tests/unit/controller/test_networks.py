"""What users write as networks and addresses."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from achelous_controller.domain.networks import (
    assignable,
    check_usable,
    parse_address,
    parse_network,
    router_of,
    why_not_assignable,
)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10.0.0.5/24", "the network is 10.0.0.0/24"),
        ("10.0.0.0", "write 10.0.0.0/32"),
        ("10.0.0.0/255.255.255.0", "write 10.0.0.0/24"),
        ("10.0.0.0/33", "as in 10.0.0.0/24"),
        ("10.0.0/24", "as in 10.0.0.0/24"),
        ("", "as in 10.0.0.0/24"),
        ("2001:db8::/32", "IPv6"),
    ],
)
def test_a_malformed_network_is_refused_with_what_would_be_right(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_network(text)


@pytest.mark.parametrize(("text", "hint"), [("10.0.0", "as in"), ("::1", "IPv6"), ("a", "as in")])
def test_a_malformed_address_is_refused_with_what_would_be_right(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_address(text)


@pytest.mark.parametrize(
    "cidr", ["0.0.0.0/8", "127.0.0.0/16", "169.254.1.0/24", "224.0.0.0/24", "255.255.255.255/32"]
)
def test_a_network_that_guests_cannot_use_is_refused(cidr: str) -> None:
    with pytest.raises(ValueError, match="not for guests"):
        check_usable(IPv4Network(cidr))


@pytest.mark.parametrize(
    ("cidr", "first", "last", "router"),
    [
        ("10.0.0.0/24", "10.0.0.1", "10.0.0.254", "10.0.0.1"),
        ("10.0.0.8/30", "10.0.0.9", "10.0.0.10", "10.0.0.9"),
        ("10.0.0.8/31", "10.0.0.8", "10.0.0.9", "169.254.1.1"),
        ("10.0.0.8/32", "10.0.0.8", "10.0.0.8", "169.254.1.1"),
    ],
)
def test_a_subnet_has_the_addresses_that_users_expect(
    cidr: str, first: str, last: str, router: str
) -> None:
    network = IPv4Network(cidr)

    assert assignable(network) == (int(IPv4Address(first)), int(IPv4Address(last)))
    assert router_of(network, None) == IPv4Address(router)


@pytest.mark.parametrize(
    ("cidr", "router", "hint"),
    [
        ("10.0.0.0/24", "10.0.0.0", "10.0.0.1 to 10.0.0.254"),
        ("10.0.0.0/24", "10.0.0.255", "10.0.0.1 to 10.0.0.254"),
        ("10.0.0.0/24", "10.0.1.1", "10.0.0.1 to 10.0.0.254"),
        ("10.0.0.8/31", "10.0.0.8", "leave gateway_ip out"),
    ],
)
def test_a_router_has_one_of_the_subnets_own_addresses(cidr: str, router: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        router_of(IPv4Network(cidr), IPv4Address(router))


@pytest.mark.parametrize(
    ("cidr", "address", "why"),
    [
        ("10.0.0.0/24", "10.0.0.2", None),
        ("10.0.0.0/24", "10.0.0.254", None),
        ("10.0.0.0/24", "10.0.0.0", "network address"),
        ("10.0.0.0/24", "10.0.0.255", "broadcast address"),
        ("10.0.0.0/24", "10.0.0.1", "router's address"),
        ("10.0.0.0/24", "10.0.1.2", "not in the subnet"),
        ("10.0.0.8/31", "10.0.0.8", None),
        ("10.0.0.8/31", "10.0.0.9", None),
        ("10.0.0.8/32", "10.0.0.8", None),
    ],
)
def test_a_vnic_has_an_assignable_address(cidr: str, address: str, why: str | None) -> None:
    network = IPv4Network(cidr)

    found = why_not_assignable(IPv4Address(address), network, router_of(network, None))

    assert found is None if why is None else why in str(found)
