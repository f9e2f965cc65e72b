"""What a gateway's relay would find, read from its pinned maps without the gateway's own code."""

from pathlib import Path

import numpy as np

from achelous_gateway.shared_table import map_sizes
from achelous_shared.bpf import BpfObject
from achelous_shared.route_following.table import KEY, Records


def relay_routes(path: Path, pins: Path, capacity: int) -> tuple[Records, Records]:
    """`KEY` and value of each row that a slot leads to."""
    with BpfObject.open(path, pin_dir=pins, max_entries=map_sizes(capacity)) as loaded:
        maps = {name: one.mmap().copy() for name, one in loaded.maps.items() if "route_" in name}
    words = maps["route_buckets"]["slots"]
    rows = (words[words != 0] & np.uint64(2**32 - 1)).astype(np.int64) - 1
    found = maps["route_keys"][rows]
    keys = np.zeros(len(rows), KEY)
    keys["vni"], keys["ip"] = found["vni"], found["ip"].copy().view(np.uint8)
    return keys, maps["route_values"][rows]
