"""RSP, the route synchronisation protocol: pure functions between bytes and packed arrays.

Layout after the paper's figure: a header (entry count, id, size, type), then request entries
(magic, options, tunnel id, key type, key); a reply echoes each request entry and adds type,
length, MTU and next hop. All integers are in network order. Entries have a fixed size, so that a
batch is one numpy view; ``length`` says how many bytes of the next hop count.

    header          count 2 | version 1 | type 1 | id 4 | size 4 | reserved 4               = 16 B
    request entry   magic 2 | options 2 | vni 4 | key type 1 | reserved 3 | key 16           = 28 B
    reply entry     request entry | type 1 | length 1 | MTU 2 | revision 8 | next hop 16 | MAC 6
                    | identity 2                                                            = 64 B
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

VERSION: Final = 1
MAGIC: Final = 0x5253
MAX_ENTRIES: Final = 1024
"""Of one message: a reply of that many entries is 64 KiB."""

HEADER: Final = np.dtype(
    [
        ("count", ">u2"),
        ("version", "u1"),
        ("type", "u1"),
        ("id", ">u4"),
        ("size", ">u4"),
        ("reserved", ">u4"),
    ]
)
_HEADER_STRUCT: Final = struct.Struct(">HBBIII")
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
    ]
)

MAX_REQUEST_BYTES: Final = HEADER.itemsize + MAX_ENTRIES * REQUEST.itemsize

Entries = npt.NDArray[np.void]


class MessageType(IntEnum):
    """Type of a whole message."""

    REQUEST = 1
    REPLY = 2


class KeyType(IntEnum):
    """What the key of an entry is."""

    ADDRESS = 1
    """A destination address, 16 bytes, IPv4 mapped."""


class ReplyType(IntEnum):
    """What a gateway answers for one key."""

    ROUTE = 1
    NO_ROUTE = 2
    """The VPC is known and has no such destination."""
    UNKNOWN_VNI = 3


class RspError(ValueError):
    """Bytes that are no RSP message; the text says which field is wrong and what would be right."""


@dataclass(frozen=True, slots=True)
class RspMessage:
    """A decoded message. ``entries``: a read-only view, dtype `REQUEST` or `REPLY` by ``type``."""

    type: MessageType
    id: int
    entries: Entries


def requests(vnis: npt.ArrayLike, keys: npt.ArrayLike) -> Entries:
    """Request entries for destinations: ``vnis`` of shape (n,), ``keys`` of shape (n, 16)."""
    vni_column = np.asarray(vnis, dtype=np.uint32)
    entries = np.zeros(len(vni_column), REQUEST)
    entries["magic"] = MAGIC
    entries["vni"] = vni_column
    entries["key_type"] = KeyType.ADDRESS
    entries["key"] = keys
    return entries


def encode(kind: MessageType, message_id: int, entries: Entries) -> bytes:
    """The bytes of a message of at most `MAX_ENTRIES` entries."""
    if len(entries) > MAX_ENTRIES:
        raise RspError(f"{len(entries)} entries, a message holds at most {MAX_ENTRIES}")
    header = np.zeros(1, HEADER)
    header["count"] = len(entries)
    header["version"] = VERSION
    header["type"] = kind
    header["id"] = message_id
    header["size"] = HEADER.itemsize + entries.nbytes
    return header.tobytes() + entries.tobytes()


def decode(data: bytes, expected: MessageType) -> RspMessage:
    """The message in ``data``; every count, size, type and magic is checked. Raises `RspError`."""
    if len(data) < HEADER.itemsize:
        raise RspError(f"{len(data)} bytes, a header alone has {HEADER.itemsize}")
    header = np.frombuffer(data, HEADER, 1)[0]
    if header["version"] != VERSION:
        raise RspError(f"version {header['version']}, this program speaks {VERSION}")
    if header["type"] != expected:
        raise RspError(f"message type {header['type']}, expected {expected.value}")
    dtype = REQUEST if expected is MessageType.REQUEST else REPLY
    count = int(header["count"])
    if count > MAX_ENTRIES:
        raise RspError(f"{count} entries, a message holds at most {MAX_ENTRIES}")
    size = HEADER.itemsize + count * dtype.itemsize
    if header["size"] != size or len(data) != size:
        raise RspError(
            f"{len(data)} bytes with size field {header['size']}, {count} entries take {size}"
        )
    entries = np.frombuffer(data, dtype, count, HEADER.itemsize)
    if not (entries["magic"] == MAGIC).all():
        raise RspError(f"an entry's magic is not {MAGIC:#06x}")
    if not (entries["key_type"] == KeyType.ADDRESS).all():
        raise RspError(f"an entry's key type is not {KeyType.ADDRESS.value} (address)")
    return RspMessage(expected, int(header["id"]), entries)


@dataclass(frozen=True, slots=True)
class Requests:
    """The entries of many requests, one request after the other, as one array of `REQUEST`."""

    heads: Sequence[tuple[int, int] | None]
    """(id, number of entries) of each request; None for what is no request and has no entries."""
    entries: Entries


def decode_requests(messages: Sequence[bytes]) -> Requests:
    """Decode many requests at once, checked like `decode` checks one."""
    heads = [_head(message) for message in messages]
    entries = _entries(messages, heads)
    if not _are_requests(entries):
        heads = [
            head if head and _are_requests(_entries([message], [head])) else None
            for message, head in zip(messages, heads, strict=True)
        ]
        entries = _entries(messages, heads)
    return Requests(heads, entries)


def encode_replies(heads: Sequence[tuple[int, int] | None], entries: Entries) -> list[bytes]:
    """A reply for each of ``heads`` with its share of ``entries``; for None with id 0 and none."""
    data = entries.tobytes()
    replies = []
    at = 0
    for head in heads:
        message_id, count = head or (0, 0)
        size = count * REPLY.itemsize
        header = _HEADER_STRUCT.pack(
            count, VERSION, MessageType.REPLY, message_id, HEADER.itemsize + size, 0
        )
        replies.append(header + data[at : at + size])
        at += size
    return replies


def _head(data: bytes) -> tuple[int, int] | None:
    if len(data) < HEADER.itemsize:
        return None
    count, version, kind, message_id, size, _ = _HEADER_STRUCT.unpack_from(data)
    right = HEADER.itemsize + count * REQUEST.itemsize
    if version != VERSION or kind != MessageType.REQUEST or not right == size == len(data):
        return None
    return (message_id, count) if count <= MAX_ENTRIES else None


def _entries(messages: Sequence[bytes], heads: Sequence[tuple[int, int] | None]) -> Entries:
    sound = [
        message[HEADER.itemsize :] for message, head in zip(messages, heads, strict=True) if head
    ]
    return np.frombuffer(b"".join(sound), REQUEST)


def _are_requests(entries: Entries) -> bool:
    magic, key_type = entries["magic"] == MAGIC, entries["key_type"] == KeyType.ADDRESS
    return bool(magic.all() and key_type.all())
