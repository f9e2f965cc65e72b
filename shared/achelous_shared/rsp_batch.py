"""Many RSP requests decoded and answered together: one view, one lookup, one write."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from achelous_shared.rsp import (
    HEADER_BYTES,
    MAGIC,
    NO_OPTIONS,
    REPLY,
    REQUEST,
    Entries,
    Head,
    MessageType,
    Options,
    RspError,
    families,
    header,
    read_header,
)

_NO_HEAD: Final = Head(0, 0, NO_OPTIONS)


@dataclass(frozen=True, slots=True)
class Requests:
    """The entries of many requests, one request after the other, as one array of `REQUEST`."""

    heads: Sequence[Head | None]
    """Of each request; None for what is no request and has no entries."""
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
    offered, agreed = NO_OPTIONS, options.agree(NO_OPTIONS)
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
    try:
        head = read_header(data, MessageType.REQUEST)
    except RspError:
        return None
    return head if len(data) == HEADER_BYTES + head.total * REQUEST.itemsize else None


def _entries(messages: Sequence[bytes], heads: Sequence[Head | None]) -> Entries:
    sound = [message[HEADER_BYTES:] for message, head in zip(messages, heads, strict=True) if head]
    return np.frombuffer(b"".join(sound), REQUEST)


def _are_requests(entries: Entries) -> bool:
    magic, key_type = entries["magic"] == MAGIC, entries["key_type"] == families(entries)
    return bool(magic.all() and key_type.all())
