"""Other views of packed records, by which numpy copies several of their fields at once.

Records of two such views are assigned by the order of their fields, whatever their names.
"""

from typing import Any

import numpy as np


def fields_at(dtype: np.dtype[Any], **fields: tuple[str, int]) -> np.dtype[Any]:
    """Records of the same size with these fields: of each its type and where it begins."""
    formats, offsets = zip(*fields.values(), strict=True)
    return np.dtype(
        {"names": [*fields], "formats": formats, "offsets": offsets, "itemsize": dtype.itemsize}
    )


def fields_of(dtype: np.dtype[Any], *names: str) -> np.dtype[Any]:
    """Records of the same size with these fields, of which arrays are mere bytes."""
    return fields_at(
        dtype, **{name: (_plain(dtype[name]), offset_of(dtype, name)) for name in names}
    )


def offset_of(dtype: np.dtype[Any], name: str) -> int:
    """Where a field begins, bytes."""
    fields = dtype.fields
    if fields is None:
        raise TypeError(f"{dtype} has no fields")
    return int(fields[name][1])


def _plain(dtype: np.dtype[Any]) -> str:
    return f"V{dtype.itemsize}" if dtype.subdtype else dtype.str
