"""Tables as numpy sees them: records by field names, addresses as keys have them."""

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final, cast

import numpy as np

from achelous_shared.bpf import BpfObject, MapType, RingBuffer, dtype_of

EVENTS: Final = {
    "learn": "ach_learn_event",
    "samples": "ach_drop_sample",
    "relayed_for": "ach_relayed_event",
}
"""What each ring holds."""


def mapped(ip: str) -> bytes:
    """The 16 bytes of an address in keys."""
    address = ip_address(ip)
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def unmapped(key: bytes) -> IPv4Address | IPv6Address:
    """The address of such a key."""
    address = IPv6Address(key)
    return address.ipv4_mapped or address


def record(dtype: np.dtype[Any], **fields: Any) -> np.void:
    """A record of that dtype, zero where not named. Bytes fill arrays."""
    made = np.zeros((), dtype)
    for name, value in fields.items():
        made[name] = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
    return cast(np.void, made[()])


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def clear(loaded: BpfObject) -> None:
    """Empty every table and set all counters to 0."""
    for name, table in loaded.maps.items():
        match table.type:
            case MapType.ARRAY if name[0] != ".":
                table.mmap()[:] = np.zeros(1, table.value_dtype)
            case MapType.HASH | MapType.LRU_HASH:
                table.delete_batch(table.lookup_batch_all()[0])
            case MapType.PERCPU_ARRAY:
                keys, values = table.lookup_batch_all()
                table.update_batch(keys, np.zeros_like(values))
            case MapType.RINGBUF:
                RingBuffer(table, dtype_of(loaded, EVENTS[name])).read(1 << 16)
