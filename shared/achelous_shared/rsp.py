"""RSP, the route synchronisation protocol: pure functions between bytes and packed arrays.

Layout after the paper's figure: a header (entry count, id, size, type), then request entries
(magic, options, tunnel id, key type, key); a reply echoes each request entry and adds type,
length, MTU and next hop. All integers are in network order. Entries have a fixed size, so that a
batch is one numpy view; ``length`` says how many bytes of the next hop count.

    header          count 2 | version 1 | type 1 | id 4 | size 4 | capabilities 2 | MTU 2    = 16 B
    request entry   magic 2 | options 2 | vni 4 | key type 1 | reserved 3 | key 16           = 28 B
    reply entry     request entry | type 1 | length 1 | MTU 2 | revision 8 | next hop 16 | MAC 6
                    | identity 2 | as of 8                                                   = 72 B

What changed since a revision is asked by the messages of `rsp_changes`.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

VERSION: Final = 2
MAGIC: Final = 0x5253
MAX_ENTRIES: Final = 1024
"""Of one message: a reply of that many entries is 72 KiB."""

_HEADER: Final = struct.Struct(">HBBIIHH")
HEADER_BYTES: Final = _HEADER.size
_REQUEST_FIELDS: Final = [
    ("magic", ">u2"),
    ("options", ">u2"),
    ("vni", ">u4"),
    ("key_type", "u1"),
    ("reserved", "u1", (3,)),
    ("key", "u1", (16,)),
]
REQUEST: Final = np.dtype(_REQUEST_FIELDS)
REPLY: Final = np.dtype(
    [
        *_REQUEST_FIELDS,
        ("type", "u1"),
        ("length", "u1"),
        ("mtu", ">u2"),
        ("revision", ">u8"),
        ("next_hop", "u1", (16,)),
        ("mac", "u1", (6,)),
        ("identity", ">u2"),
        ("as_of", ">u8"),
    ]
)
_KEY_WORDS: Final = slice(3, 6)  # of a request entry, in words of 4 bytes: a key's first 12 bytes
_MAPPED: Final = np.frombuffer(b"\0" * 10 + b"\xff\xff", "<u4")
_ADDRESS_BYTES: Final = np.uint8(16)

MAX_REQUEST_BYTES: Final = HEADER_BYTES + MAX_ENTRIES * REQUEST.itemsize
"""Of any message that a gateway is sent."""

Entries = npt.NDArray[np.void]


class MessageType(IntEnum):
    """Type of a whole message."""

    REQUEST = 1
    REPLY = 2
    PUSH = 3
    """Reply entries that nobody asked for; id 0."""
    WATCH = 4
    """What changed in these VPCs? See `rsp_changes`."""
    CHANGES = 5


class Capability(IntFlag):
    """What a side can do beyond requests and replies. Flags that it does not know, it ignores."""

    CHANGES = 1
    """Answers, or asks by, WATCH."""
    PUSH = 2
    """Sends, or takes, routes that nobody asked for."""
    GAPS = 4
    """Tells, or can be told, that changes were missed: `rsp_changes.Status.GAP`."""


class Options(NamedTuple):
    """What one side of an exchange offers, or in a reply what both have in common."""

    capabilities: int = 0
    mtu: int = 0
    """Largest inner packet that the side's underlay carries, bytes; 0: it does not say."""

    def agree(self, other: "Options") -> "Options":
        """What both can do: common capabilities, and the lower MTU of those that are said."""
        said = [mtu for mtu in (self.mtu, other.mtu) if mtu]
        return Options(int(self.capabilities) & int(other.capabilities), min(said, default=0))


NO_OPTIONS: Final = Options()


class KeyType(IntEnum):
    """What the key of an entry is. Both are 16 bytes; a key of the other family is refused."""

    IPV4 = 1
    """A destination address, mapped into ::ffff:0:0/96."""
    IPV6 = 2
    """Any other destination address."""


class ReplyType(IntEnum):
    """What a gateway answers for one key."""

    ROUTE = 1
    NO_ROUTE = 2
    """The VPC is known and has no such destination."""
    UNKNOWN_VNI = 3


# numpy turns an enum's member into an array each time that they meet
_IPV4: Final = np.uint8(KeyType.IPV4)
_IPV6: Final = np.uint8(KeyType.IPV6)
_ROUTE: Final = np.uint8(ReplyType.ROUTE)
_UNKNOWN_VNI: Final = np.uint8(ReplyType.UNKNOWN_VNI)


class RspError(ValueError):
    """Bytes that are no RSP message; the text says which field is wrong and what would be right."""


class Head(NamedTuple):
    """What the header of a sound message says."""

    id: int
    total: int
    """Of entries."""
    options: Options


@dataclass(frozen=True, slots=True)
class RspMessage:
    """A decoded message. ``entries``: a read-only view, dtype `REQUEST` or `REPLY` by ``type``."""

    type: MessageType
    id: int
    entries: Entries
    options: Options = NO_OPTIONS


def requests(vnis: npt.ArrayLike, keys: npt.ArrayLike) -> Entries:
    """Request entries for destinations: ``vnis`` of shape (n,), ``keys`` of shape (n, 16)."""
    vni_column = np.asarray(vnis, dtype=np.uint32)
    entries = np.zeros(len(vni_column), REQUEST)
    entries["magic"] = MAGIC
    entries["vni"] = vni_column
    entries["key"] = keys
    entries["key_type"] = families(entries)
    return entries


def encode(
    kind: MessageType, message_id: int, entries: Entries, options: Options = NO_OPTIONS
) -> bytes:
    """The bytes of a message of at most `MAX_ENTRIES` entries."""
    if len(entries) > MAX_ENTRIES:
        raise RspError(f"{len(entries)} entries, a message holds at most {MAX_ENTRIES}")
    return header(kind, message_id, len(entries), entries.nbytes, options) + entries.tobytes()


def header(kind: MessageType, message_id: int, count: int, body: int, options: Options) -> bytes:
    """The header of a message of ``count`` entries and ``body`` bytes after the header."""
    return _HEADER.pack(count, VERSION, kind, message_id, HEADER_BYTES + body, *options)


def read_header(data: bytes, expected: MessageType) -> Head:
    """What the header says, checked but for what the entries take. Raises `RspError`."""
    if len(data) < HEADER_BYTES:
        raise RspError(f"{len(data)} bytes, a header alone has {HEADER_BYTES}")
    count, version, kind, message_id, size, capabilities, mtu = _HEADER.unpack_from(data)
    if version != VERSION:
        raise RspError(f"version {version}, this program speaks {VERSION}")
    if kind != expected:
        raise RspError(f"message type {kind}, expected {expected.value}")
    if count > MAX_ENTRIES:
        raise RspError(f"{count} entries, a message holds at most {MAX_ENTRIES}")
    if size != len(data):
        raise RspError(f"{len(data)} bytes with size field {size}, they should be equal")
    return Head(message_id, count, Options(capabilities, mtu))


def read_entries(data: bytes, count: int, dtype: np.dtype[Any], *, more: int = 0) -> Entries:
    """The entries after the header, their magic checked; then exactly ``more`` bytes."""
    size = HEADER_BYTES + count * dtype.itemsize + more
    if len(data) != size:
        raise RspError(f"{len(data)} bytes, {count} entries take {size}")
    entries = np.frombuffer(data, dtype, count, HEADER_BYTES)
    if not (entries["magic"] == MAGIC).all():
        raise RspError(f"an entry's magic is not {MAGIC:#06x}")
    return entries


def decode(data: bytes, expected: MessageType) -> RspMessage:
    """The message in ``data``; every count, size, type and magic is checked. Raises `RspError`.

    ``expected``: REQUEST, or REPLY or PUSH, which have the same entries.
    """
    head = read_header(data, expected)
    entries = read_entries(data, head.total, REQUEST if expected is MessageType.REQUEST else REPLY)
    if not (entries["key_type"] == families(entries)).all():
        raise RspError(
            f"an entry's key type is neither {KeyType.IPV4.value} with an IPv4 address "
            f"nor {KeyType.IPV6.value} with an IPv6 address"
        )
    if expected is not MessageType.REQUEST:
        _check_replies(entries)
    return RspMessage(expected, head.id, entries, head.options)


def families(entries: Entries) -> npt.NDArray[np.uint8]:
    """The key type that each of the `REQUEST` or `REPLY` entries should have (n,)."""
    words = entries.view("<u4").reshape(-1, entries.itemsize // 4)[:, _KEY_WORDS]
    mapped = (words == _MAPPED).all(axis=1)
    return np.where(mapped, _IPV4, _IPV6)


def _check_replies(entries: Entries) -> None:
    types = entries["type"]
    if (types - _ROUTE > _UNKNOWN_VNI - _ROUTE).any():  # 0 becomes 255
        last = ReplyType.UNKNOWN_VNI.value
        raise RspError(f"an entry's reply type is not in {ReplyType.ROUTE.value}..{last}")
    if (entries["length"] != (types == _ROUTE) * _ADDRESS_BYTES).any():
        raise RspError(f"an entry's next hop has not {_ADDRESS_BYTES} bytes with a route, else 0")
