"""Many RSP requests decoded and answered together: one view, one lookup, one write."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from achelous_shared.rsp import (
    HEADER_BYTES,
    MAGIC,
    NO_OPTIONS,
    REPLY,
    REQUEST,
    Entries,
    Head,
    KeyType,
    MessageType,
    Options,
    RspError,
    families,
    header,
    read_header,
)

_NO_HEAD: Final = Head(0, 0, NO_OPTIONS)
_NO_ENTRIES: Final = np.zeros(0, REQUEST)
_REQUEST: Final = bytes([MessageType.REQUEST])


def _words(entries: Entries) -> npt.NDArray[np.uint32]:
    return entries.view(np.uint32).reshape(-1, REQUEST.itemsize // 4)


def _ipv4() -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Words of a request for an IPv4 address: which of their bits are given, and what they are."""
    given, entry = np.zeros(1, REQUEST), np.zeros(1, REQUEST)
    given["magic"], entry["magic"] = 0xFFFF, MAGIC
    given["key_type"], entry["key_type"] = 0xFF, KeyType.IPV4
    given["key"][:, :12], entry["key"][:, 10:12] = 0xFF, 0xFF
    return _words(given), _words(entry)


_IPV4_GIVEN, _IPV4 = _ipv4()


@dataclass(frozen=True, slots=True)
class Requests:
    """The entries of many requests, one request after the other, as one array of `REQUEST`."""

    heads: Sequence[Head | None]
    """Of each request; None for what is no request and has no entries."""
    entries: Entries


def decode_requests(messages: Sequence[bytes]) -> Requests:
    """Decode many requests at once, checked like `decode` checks one."""
    heads = [_head(message) for message in messages]
    if not any(heads):
        return Requests(heads, _NO_ENTRIES)
    entries = _entries(messages, heads)
    if not _are_requests(entries):
        heads = [
            head if head and _are_requests(_entries([message], [head])) else None
            for message, head in zip(messages, heads, strict=True)
        ]
        entries = _entries(messages, heads)
    return Requests(heads, entries)


def encode_replies(
    heads: Sequence[Head | None], entries: Entries, options: Options = NO_OPTIONS
) -> list[bytes]:
    """A reply for each of ``heads`` with its share of ``entries``; for None with id 0 and none.

    ``options``: what the answering side offers; each reply says what it has in common with its
    request.
    """
    data = entries.tobytes()
    replies = []
    at = 0
    offered: Options | None = None
    for head in heads:
        message_id, count, offers = head or _NO_HEAD
        size = count * REPLY.itemsize
        if offers != offered:  # askers mostly offer alike
            offered, agreed = offers, options.agree(offers)
        replies.append(
            header(MessageType.REPLY, message_id, count, size, agreed) + data[at : at + size]
        )
        at += size
    return replies


def _head(data: bytes) -> Head | None:
    if data[3:4] != _REQUEST:  # a question for changes, most often
        return None
    try:
        head = read_header(data, MessageType.REQUEST)
    except RspError:
        return None
    return head if len(data) == HEADER_BYTES + head.total * REQUEST.itemsize else None


def _entries(messages: Sequence[bytes], heads: Sequence[Head | None]) -> Entries:
    sound = [message[HEADER_BYTES:] for message, head in zip(messages, heads, strict=True) if head]
    return np.frombuffer(b"".join(sound), REQUEST)


def _are_requests(entries: Entries) -> bool:
    if ((_words(entries) & _IPV4_GIVEN) == _IPV4).all():  # as nearly always
        return True
    magic, key_type = entries["magic"] == MAGIC, entries["key_type"] == families(entries)
    return bool(magic.all() and key_type.all())
