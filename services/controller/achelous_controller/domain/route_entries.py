"""Entries of a VPC's routes from columns of addresses."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from achelous_shared.routes import ROUTE, RouteOp, Routes

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
