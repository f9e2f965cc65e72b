"""The NATS client protocol as far as a responder needs it: bytes to messages and back, pure.

https://docs.nats.io/reference/reference-protocols/nats-protocol: lines end with CR LF, a message is
a line ``MSG <subject> <sid> [reply-to] <bytes>`` and a payload, or ``HMSG`` with the bytes of its
headers before those of all. Whole chunks are split at once,
because at tens of thousands of messages a second every step per message counts.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

_END: Final = b"\r\n"
MAX_LINE: Final = 64 * 1024
"""Bytes of a line without its end; the longest is INFO with the servers of a cluster."""

PING: Final = b"PING\r\n"
PONG: Final = b"PONG\r\n"


class WireError(ValueError):
    """Bytes that are not the NATS protocol; nothing after them can be understood."""


@dataclass(slots=True)
class Received:
    """What one chunk of bytes completed."""

    lines: list[bytes] = field(default_factory=list)
    """Everything but messages: PING, INFO {...}, -ERR '...' and so on."""
    subjects: list[bytes] = field(default_factory=list)
    """Of each message."""
    replies_to: list[bytes] = field(default_factory=list)
    """Of each message the subject for its reply; empty if none is wanted."""
    payloads: list[bytes] = field(default_factory=list)
    """Of each message; empty if it was longer than the limit."""
    headers: list[bytes] = field(default_factory=list)
    """Of each message; empty if it has none."""


class Splitter:
    """Splits a stream of chunks. Payloads longer than ``max_payload`` are skipped, not kept."""

    def __init__(self, max_payload: int) -> None:
        self._max_payload = max_payload
        self._rest: list[bytes] = []  # the beginning of a line or a message, as it came
        self._missing = 0  # bytes that must come at least before that is whole
        self._skip = 0

    def feed(self, chunk: bytes) -> Received:
        """What ``chunk`` completes; raises `WireError`."""
        found = Received()
        if self._skip:
            skipped = min(self._skip, len(chunk))
            self._skip -= skipped
            chunk = chunk[skipped:]
        if self._missing > len(chunk):  # joined when it is whole: a message has many chunks
            self._rest.append(chunk)
            self._missing -= len(chunk)
            return found
        data = b"".join((*self._rest, chunk))
        self._missing = at = 0
        while (end := data.find(_END, at)) >= 0:
            if not data.startswith(_MESSAGE, at):
                found.lines.append(data[at:end])
                at = end + 2
                continue
            words = data[at:end].split()
            headers = _headers(words) if words[0] == b"HMSG" else 0
            size = _size(words)
            start = end + 2
            stop = start + size
            if size > self._max_payload:
                payload = b""
                self._skip = max(0, stop + 2 - len(data))
            elif stop + 2 > len(data):
                self._missing = stop + 2 - len(data)
                break
            else:
                payload = data[start + headers : stop]
            found.subjects.append(words[1])
            found.replies_to.append(words[3] if len(words) == _WITH_REPLY else b"")
            found.payloads.append(payload)
            found.headers.append(data[start : start + headers])
            at = stop + 2
        self._rest = [data[at:]] if at < len(data) else []
        if end < 0 and len(data) - at > MAX_LINE:
            raise WireError(f"a line of more than {MAX_LINE} bytes")
        return found


_MESSAGE: Final = (b"MSG ", b"HMSG ")
_WITH_REPLY: Final = 5


def _headers(words: list[bytes]) -> int:
    """Takes the size of the headers out of the line."""
    size = words.pop(-2) if len(words) > _WITH_REPLY - 1 else b""
    if size.isdigit():
        return int(size)
    raise WireError(f"a message line without a size of headers: {b' '.join(words)[:80]!r}")


def _size(words: list[bytes]) -> int:
    if len(words) in (_WITH_REPLY - 1, _WITH_REPLY) and words[-1].isdigit():
        return int(words[-1])
    raise WireError(f"a message line of {len(words)} words: {b' '.join(words)[:80]!r}")


def connect(user: str, password: str, name: str, *, headers: bool = False) -> bytes:
    """The line that logs in, without acknowledgements.

    ``headers``: messages may have some, and one that nobody takes is answered by an empty one.
    """
    options = {
        "verbose": False,
        "pedantic": False,
        "headers": headers,
        "no_responders": headers,
        "lang": "achelous",
        "version": "1",
        "protocol": 1,
        "name": name,
        "user": user,
        "pass": password,
    }
    return b"CONNECT %s\r\n" % json.dumps(options).encode()


def subscribe(subject: str) -> bytes:
    """The line that subscribes to ``subject``, the one subscription of a connection."""
    return b"SUB %s 1\r\n" % subject.encode()


def publish(messages: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Messages to send: (subject, payload) of each; the subject may be followed by a blank and that
    for replies."""
    return b"".join(
        [b"PUB %b %d\r\n%b\r\n" % (subject, len(payload), payload) for subject, payload in messages]
    )


def request(subject: bytes, reply_to: bytes, payload: bytes, message_id: str | None) -> bytes:
    """A message for a stream, which answers on ``reply_to``; of two with one id it drops one."""
    if message_id is None:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply_to, len(payload), payload)
    headers = b"NATS/1.0\r\nNats-Msg-Id: %b\r\n\r\n" % message_id.encode()
    size = len(headers) + len(payload)
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (
        subject, reply_to, len(headers), size, headers, payload,
    )  # fmt: skip
