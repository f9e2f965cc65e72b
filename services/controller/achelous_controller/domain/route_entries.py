"""Entries of a VPC's routes from columns of addresses."""

import numpy as np
import numpy.typing as npt

from achelous_shared.routes import ROUTE, RouteOp, Routes


def entries(
    op: RouteOp,
    ips: npt.ArrayLike,
    vteps: npt.ArrayLike,
    macs: npt.ArrayLike,
    identities: npt.ArrayLike = 0,
) -> Routes:
    """One entry for each address. All columns have shape (n,) and hold integers."""
    address = np.asarray(ips, dtype=">u4")
    table = np.zeros(len(address), ROUTE)
    table["ip"][:, 10:12] = 0xFF
    table["ip"][:, 12:] = address.view(np.uint8).reshape(-1, 4)
    table["vtep"] = vteps
    table["mac"] = np.asarray(macs, dtype=">u8").view(np.uint8).reshape(-1, 8)[:, 2:]
    table["op"] = op
    table["identity"] = identities
    return table
