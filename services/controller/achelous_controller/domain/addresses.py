"""Choosing free addresses of a subnet, counted from its network address: of 64 bits at most."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Addresses = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Gap:
    """Addresses ``first`` to ``last``, both included, that no vNIC has."""

    first: int
    last: int


def take(gaps: Sequence[Gap], wanted: int, excluded: Collection[int]) -> Addresses:
    """The first ``wanted`` addresses of ``gaps`` in their order that are not ``excluded``.

    Fewer when the gaps hold fewer. A caller that gathers ``wanted + len(excluded)`` addresses in
    gaps has all that it takes.
    """
    missing = wanted + len(excluded)
    parts = []
    for gap in gaps:
        if missing <= 0:
            break
        last = min(gap.last, gap.first + missing - 1)
        parts.append(np.arange(last - gap.first + 1, dtype=np.uint64) + np.uint64(gap.first))
        missing -= last - gap.first + 1
    if not parts:
        return np.empty(0, np.uint64)
    found = np.concatenate(parts)
    low, high = int(found.min()), int(found.max())
    if inside := [each for each in excluded if low <= each <= high]:
        found = found[~np.isin(found, np.array(inside, np.uint64))]
    return found[:wanted]
