"""Packed routes: sizes that the wire promises, addresses that come back, bad tables refused."""

from ipaddress import IPv4Address, IPv6Address

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from achelous_shared import routes
from achelous_shared.routes import ROUTE, MalformedTable, RouteOp


def test_the_sizes_are_those_of_the_wire() -> None:
    assert (ROUTE.itemsize, routes.REVISION.itemsize) == (38, 12)


@given(st.ip_addresses())
def test_an_address_comes_back(address: IPv4Address | IPv6Address) -> None:
    mapped = isinstance(address, IPv6Address) and address.ipv4_mapped
    assert routes.ip_of(routes.ip_bytes(address)) == (mapped or address)


def test_a_table_comes_back() -> None:
    table = np.zeros(3, ROUTE)
    table["op"] = RouteOp.UPSERT
    table["ip"][1] = np.frombuffer(routes.ip_bytes("10.0.0.1"), "u1")
    assert (routes.unpack(routes.pack(table)) == table).all()


def test_joined_tables_are_packed_in_the_byte_order_of_the_wire() -> None:
    table = np.zeros(1, ROUTE)
    table["vtep"] = 0xC6120003
    joined = np.concatenate((table, table))
    assert routes.pack(joined) == routes.pack(table) * 2


def test_half_an_entry_is_refused() -> None:
    with pytest.raises(MalformedTable, match="37 bytes are no whole number of 38-byte entries"):
        routes.unpack(b"\0" * 37)


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(MalformedTable, match="op"):
        routes.unpack(b"\0" * 38)


def test_mac_addresses_come_back() -> None:
    assert routes.mac_of(routes.mac_bytes("02:00:00:00:00:2a")) == "02:00:00:00:00:2a"
