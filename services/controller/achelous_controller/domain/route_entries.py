"""Entries of a VPC's routes, from columns of addresses or one by one."""

import struct
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from achelous_controller.domain.networks import Address
from achelous_shared.routes import ROUTE, RouteOp, Routes, ip_bytes

_ENTRY: Final = struct.Struct(">16s4s6sBxH8s")
"""`ROUTE`."""

Keys = npt.NDArray[np.uint8]
"""(n, 16): addresses as the data plane has them."""


def keys4(ips: npt.ArrayLike) -> Keys:
    """IPv4 addresses (n,) as integers, mapped."""
    address = np.asarray(ips, dtype=">u4")
    keys = np.zeros((len(address), 16), np.uint8)
    keys[:, 10:12] = 0xFF
    keys[:, 12:] = address.view(np.uint8).reshape(-1, 4)
    return keys


def keys6(ips: Iterable[int]) -> Keys:
    """IPv6 addresses as integers."""
    return np.frombuffer(b"".join(ip.to_bytes(16) for ip in ips), np.uint8).reshape(-1, 16)


def entries(
    op: RouteOp,
    ips: Keys,
    vteps: npt.ArrayLike,
    macs: npt.ArrayLike,
    identities: npt.ArrayLike = 0,
) -> Routes:
    """One entry for each address. The other columns have shape (n,) and hold integers."""
    table = np.zeros(len(ips), ROUTE)
    table["ip"] = ips
    table["vtep"] = vteps
    table["mac"] = np.asarray(macs, dtype=">u8").view(np.uint8).reshape(-1, 8)[:, 2:]
    table["op"] = op
    table["identity"] = identities
    return table


def entry(op: RouteOp, ip: Address, vtep: Address, mac: int, identity: int, revision: int) -> bytes:
    """One entry, packed: to make few as columns takes twenty times as long."""
    return _ENTRY.pack(
        ip_bytes(ip), vtep.packed, mac.to_bytes(6), op, identity, revision.to_bytes(8, "little")
    )
