"""What users write as networks and addresses."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from achelous_controller.domain.networks import (
    assignable,
    check_remote,
    check_usable,
    check_usable6,
    parse_address,
    parse_address6,
    parse_any_network,
    parse_network,
    parse_network6,
    router6_of,
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


# ---- IPv6 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("2001:db8::5/64", "the network is 2001:db8::/64"),
        ("2001:db8::", "write 2001:db8::/128"),
        ("2001:db8::/129", "as in 10.0.0.0/24 or 2001:db8::/64"),
        ("fe80::%eth0/64", "zone"),
        ("10.0.0.0/24", "is IPv4"),
    ],
)
def test_a_malformed_ipv6_network_is_refused_with_what_would_be_right(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_network6(text)


@pytest.mark.parametrize(("text", "hint"), [("::g", "as in"), ("10.0.0.1", "is IPv4")])
def test_a_malformed_ipv6_address_is_refused_with_what_would_be_right(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_address6(text)


@pytest.mark.parametrize("cidr", ["::/64", "::ffff:a00:0/120", "fe80::/64", "ff02::/64"])
def test_an_ipv6_network_that_guests_cannot_use_is_refused(cidr: str) -> None:
    with pytest.raises(ValueError, match="not for guests"):
        check_usable6(IPv6Network(cidr))


@pytest.mark.parametrize(
    ("cidr", "first", "last"),
    [
        ("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:ffff"),
        ("2001:db8::10/126", "2001:db8::11", "2001:db8::13"),
    ],
)
def test_an_ipv6_subnet_has_no_broadcast_address(cidr: str, first: str, last: str) -> None:
    network = check_usable6(IPv6Network(cidr))

    assert assignable(network) == (int(IPv6Address(first)), int(IPv6Address(last)))
    assert router6_of(network, None) == IPv6Address(first)
    assert router6_of(network, IPv6Address(last)) == IPv6Address(last)
    assert why_not_assignable(IPv6Address(last), network, IPv6Address(first)) is None


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("2001:db8::10", "subnet-router anycast"),
        ("2001:db8::11", "router's address"),
        ("2001:db8::14", "not in the subnet"),
    ],
)
def test_a_vnic_has_an_assignable_ipv6_address(address: str, why: str) -> None:
    network = IPv6Network("2001:db8::10/126")

    assert why in str(why_not_assignable(IPv6Address(address), network, network[1]))


def test_an_ipv6_router_needs_an_ipv6_network_that_it_is_in() -> None:
    with pytest.raises(ValueError, match="no IPv6 network"):
        router6_of(None, IPv6Address("fd00::1"))
    with pytest.raises(ValueError, match="fd00::1 to fd00::ffff:ffff:ffff:ffff"):
        router6_of(IPv6Network("fd00::/64"), IPv6Address("fd00:1::1"))
    assert router6_of(None, None) is None


@pytest.mark.parametrize("remote", ["::/0", "2001:db8::/32", "fe80::/10", "10.0.0.0/8"])
def test_a_rule_may_name_any_network_that_a_peer_can_be_in(remote: str) -> None:
    assert str(check_remote(parse_any_network(remote))) == remote


@pytest.mark.parametrize("remote", ["::/1", "::/96", "::ffff:0:0/96", "::ffff:10.0.0.0/104"])
def test_a_rule_of_ipv6_never_means_ipv4(remote: str) -> None:
    with pytest.raises(ValueError, match="write ::/0"):
        check_remote(IPv6Network(remote))
