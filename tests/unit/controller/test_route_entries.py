"""Route entries from columns, byte for byte."""

from ipaddress import IPv4Address, IPv6Address

import numpy as np
import pytest

from achelous_controller.domain.route_entries import entries, entry, keys4, keys6
from achelous_shared.routes import RouteOp, ip_bytes, ip_of, mac_of, pack


def test_an_entry_says_where_an_address_is() -> None:
    table = entries(
        RouteOp.UPSERT,
        keys4([int(IPv4Address("10.1.2.3")), int(IPv4Address("10.1.2.4"))]),
        [int(IPv4Address("198.18.0.9")), int(IPv4Address("198.18.0.10"))],
        [0x020000000001, 0x02FFFFFFFFFF],
    )

    assert table["ip"][0].tobytes() == b"\0" * 10 + b"\xff\xff" + bytes([10, 1, 2, 3])
    assert table.tobytes()[16:20] == bytes([198, 18, 0, 9])
    assert [mac_of(mac.tobytes()) for mac in table["mac"]] == [
        "02:00:00:00:00:01",
        "02:ff:ff:ff:ff:ff",
    ]
    assert ip_of(table["ip"][1].tobytes()) == IPv4Address("10.1.2.4")
    assert table["op"].tolist() == [RouteOp.UPSERT] * 2


def test_no_addresses_make_no_entries() -> None:
    assert len(entries(RouteOp.DELETE, keys4([]), [], [])) == 0


def test_an_ipv6_address_is_a_key_as_it_is() -> None:
    ips = [IPv6Address("fd00::1"), IPv6Address("2001:db8:ffff::")]

    keys = keys6(int(ip) for ip in ips)

    assert [key.tobytes() for key in keys] == [ip.packed for ip in ips]
    assert keys6([]).shape == (0, 16)


@pytest.mark.parametrize("ip", [IPv4Address("10.1.2.3"), IPv6Address("fd00::a:1")])
@pytest.mark.parametrize("op", RouteOp)
def test_one_entry_has_the_bytes_that_it_has_among_many(
    ip: IPv4Address | IPv6Address, op: RouteOp
) -> None:
    vtep, mac = IPv4Address("198.18.0.9"), 0x02FEDCBA9876
    key = np.frombuffer(ip_bytes(ip), np.uint8).reshape(1, 16)
    table = entries(op, key, [int(vtep)], [mac], [0xABCD])
    table["revision"] = 0x0123456789AB

    assert entry(op, ip, vtep, mac, 0xABCD, 0x0123456789AB) == pack(table)
