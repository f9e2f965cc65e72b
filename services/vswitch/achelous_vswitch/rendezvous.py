"""Which gateway serves which destinations: rendezvous hashing (Thaler and Ravishankar, 1998)."""

from collections.abc import Mapping
from uuid import UUID

import numpy as np
import numpy.typing as npt

_MASK = (1 << 64) - 1


def table(gateways: Mapping[UUID, int], slots: int) -> npt.NDArray[np.uint32]:
    """The VTEP of each slot (slots,), 0 where there is no gateway.

    A slot belongs to the gateway with the highest hash of (gateway, slot): when one comes or goes,
    only the slots that it gains or had move. All vSwitches come to the same table.
    """
    if not gateways:
        return np.zeros(slots, np.uint32)
    ids = sorted(gateways)
    seeds = np.array([(key.int ^ key.int >> 64) & _MASK for key in ids], np.uint64)
    numbers = _mix(np.arange(slots, dtype=np.uint64))
    scores = _mix(_mix(seeds)[:, np.newaxis] ^ numbers)
    vteps = np.array([gateways[key] for key in ids], np.uint32)
    best: npt.NDArray[np.intp] = scores.argmax(axis=0)
    return vteps.take(best)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64: every bit of the input moves every bit of the result."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)
