"""The NATS protocol on bytes."""

from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given

from achelous_shared import nats_wire
from achelous_shared.nats_wire import Received, Splitter, WireError

REPLIES_TO = st.sampled_from([b"", b"_INBOX_vswitch.a.b"])
MESSAGES = st.lists(st.tuples(REPLIES_TO, st.binary(max_size=40)), max_size=12)


def message(reply_to: bytes, payload: bytes) -> bytes:
    words = [b"MSG", b"achelous.v1.rsp.x", b"1", *([reply_to] if reply_to else [])]
    return b"%b %d\r\n%b\r\n" % (b" ".join(words), len(payload), payload)


def fed(*chunks: bytes, max_payload: int = 1000) -> Received:
    """What a splitter finds in all chunks."""
    splitter, found = Splitter(max_payload), Received()
    for chunk in chunks:
        part = splitter.feed(chunk)
        found.lines += part.lines
        found.replies_to += part.replies_to
        found.payloads += part.payloads
    return found


@given(MESSAGES, st.lists(st.integers(0, 600), max_size=8), st.integers(0, 40))
def test_messages_are_found_wherever_the_chunks_end(
    messages: list[tuple[bytes, bytes]], cuts: list[int], limit: int
) -> None:
    stream = b"INFO {}\r\n" + b"PING\r\n".join(message(*sent) for sent in messages)
    ends = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    chunks = [stream[at:end] for at, end in pairwise(ends)]

    found = fed(*chunks, max_payload=limit)

    assert found.lines == [b"INFO {}"] + [b"PING"] * (len(messages) - 1)
    assert found.replies_to == [reply_to for reply_to, _ in messages]
    kept = [payload if len(payload) <= limit else b"" for _, payload in messages]
    assert found.payloads == kept


@pytest.mark.parametrize(
    "garbage", [b"MSG \r\n", b"MSG a b c d e f\r\n", b"MSG subject 1 many\r\n", b"MSG s 1 -5\r\n"]
)
def test_a_message_line_that_says_no_size_is_refused(garbage: bytes) -> None:
    with pytest.raises(WireError, match="a message line"):
        fed(garbage)


def test_a_line_without_an_end_is_refused() -> None:
    with pytest.raises(WireError, match="more than"):
        fed(*[b"x" * 10_000] * 10)


def test_what_is_published_names_subject_and_size() -> None:
    sent = nats_wire.publish([(b"a.b", b"hello"), (b"c", b"")])
    assert sent == b"PUB a.b 5\r\nhello\r\nPUB c 0\r\n\r\n"
