"""Routes as they travel and are kept: packed numpy arrays, never one object per entry."""

from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import numpy as np
import numpy.typing as npt

from achelous_shared.records import offset_of

MAX_DELTA_ENTRIES: Final = 8192
"""Entries of one delta (304 KiB): far below the bus's limit of one message, 1 MB."""

MAX_PAGE_ENTRIES: Final = 16_384
"""Entries of one page of a snapshot: 608 KiB."""

ROUTE: Final = np.dtype(
    [
        ("ip", "u1", (16,)),  # destination, IPv4 mapped
        ("vtep", ">u4"),  # underlay address of its host
        ("mac", "u1", (6,)),  # of the destination vNIC
        ("op", "u1"),
        ("reserved", "u1"),
        ("identity", ">u2"),  # of the destination's security groups, 0: none that matters
        ("revision", "<u8"),  # of the VPC when this entry last changed
    ]
)
"""One route, 38 bytes, on the wire and in snapshots."""

REVISION: Final = np.dtype([("vni", "<u4"), ("revision", "<u8")])
"""The revision of one VPC, 12 bytes."""

_WIRE: Final = {dtype.names: dtype for dtype in (ROUTE, REVISION)}

Routes = npt.NDArray[np.void]


class RouteOp(IntEnum):
    """What an entry of a delta asks for."""

    UPSERT = 1
    DELETE = 2
    """Conditional: removes the entry only if the one held is not newer than this revision."""


_OP_AT: Final = offset_of(ROUTE, "op")
_OPS: Final = bytes(RouteOp)


class MalformedTable(ValueError):
    """A packed table whose bytes are no whole number of entries, or hold values out of range."""


def pack(table: Routes) -> bytes:
    """The bytes of a table of `ROUTE` or `REVISION`, in their byte order.

    Whatever order the table has: numpy makes it the machine's own where it joins tables.
    """
    return np.ascontiguousarray(table, _WIRE[table.dtype.names]).tobytes()


def unpack(data: bytes, dtype: np.dtype[np.void] = ROUTE) -> Routes:
    """A read-only view of the packed table in ``data``; raises `MalformedTable`."""
    if len(data) % dtype.itemsize:
        raise MalformedTable(
            f"{len(data)} bytes are no whole number of {dtype.itemsize}-byte entries"
        )
    if dtype is ROUTE and data[_OP_AT :: ROUTE.itemsize].strip(_OPS):
        raise MalformedTable("an entry's op is neither 1 (upsert) nor 2 (delete)")
    return np.frombuffer(data, dtype=dtype)


def ip_bytes(address: IPv4Address | IPv6Address | str) -> bytes:
    """16 bytes of an address, IPv4 mapped into ::ffff:0:0/96."""
    if isinstance(address, str):
        address = IPv6Address(address) if ":" in address else IPv4Address(address)
    if isinstance(address, IPv4Address):
        return b"\0" * 10 + b"\xff\xff" + address.packed
    return address.packed


def ip_of(data: bytes) -> IPv4Address | IPv6Address:
    """The address that 16 bytes stand for; the inverse of `ip_bytes`."""
    address = IPv6Address(data)
    return address.ipv4_mapped or address


def mac_bytes(mac: str) -> bytes:
    """6 bytes of a MAC address written as aa:bb:cc:dd:ee:ff."""
    return bytes.fromhex(mac.replace(":", ""))


def mac_of(data: bytes) -> str:
    """A MAC address as aa:bb:cc:dd:ee:ff."""
    return data.hex(":")
