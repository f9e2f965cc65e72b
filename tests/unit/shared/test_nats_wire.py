"""The NATS protocol on bytes."""

from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given

from achelous_shared import nats_wire
from achelous_shared.nats_wire import Received, Splitter, WireError

REPLIES_TO = st.sampled_from([b"", b"_INBOX_vswitch.a.b"])
HEADERS = st.sampled_from([b"", b"NATS/1.0 503\r\n\r\n", b"NATS/1.0\r\nA: b\r\n\r\n"])
MESSAGES = st.lists(st.tuples(REPLIES_TO, st.binary(max_size=40), HEADERS), max_size=12)
SUBJECT = b"achelous.v1.rsp.x"


def message(reply_to: bytes, payload: bytes, headers: bytes = b"") -> bytes:
    words = [b"HMSG" if headers else b"MSG", SUBJECT, b"1", *([reply_to] if reply_to else [])]
    sizes = [b"%d" % len(headers)] if headers else []
    sizes.append(b"%d" % len(headers + payload))
    return b"%b\r\n%b%b\r\n" % (b" ".join(words + sizes), headers, payload)


def fed(*chunks: bytes, max_payload: int = 1000) -> Received:
    """What a splitter finds in all chunks."""
    splitter, found = Splitter(max_payload), Received()
    for chunk in chunks:
        part = splitter.feed(chunk)
        found.lines += part.lines
        found.subjects += part.subjects
        found.replies_to += part.replies_to
        found.payloads += part.payloads
    return found


@given(MESSAGES, st.lists(st.integers(0, 600), max_size=8), st.integers(0, 40))
def test_messages_are_found_wherever_the_chunks_end(
    messages: list[tuple[bytes, bytes, bytes]], cuts: list[int], limit: int
) -> None:
    stream = b"INFO {}\r\n" + b"PING\r\n".join(message(*sent) for sent in messages)
    ends = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    chunks = [stream[at:end] for at, end in pairwise(ends)]

    found = fed(*chunks, max_payload=limit)

    assert found.lines == [b"INFO {}"] + [b"PING"] * (len(messages) - 1)
    assert found.subjects == [SUBJECT] * len(messages)
    assert found.replies_to == [reply_to for reply_to, _, _ in messages]
    kept = [payload if len(headers + payload) <= limit else b"" for _, payload, headers in messages]
    assert found.payloads == kept


@pytest.mark.parametrize(
    "garbage",
    [
        b"MSG \r\n",
        b"MSG a b c d e f\r\n",
        b"MSG subject 1 many\r\n",
        b"MSG s 1 -5\r\n",
        b"HMSG s 1 5\r\n",
        b"HMSG s 1 x 5\r\n",
        b"HMSG s 1 5 x\r\n",
    ],
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


def test_a_message_for_a_stream_wants_an_answer_and_may_have_an_id() -> None:
    assert nats_wire.request(b"a", b"in.1", b"hello", None) == b"PUB a in.1 5\r\nhello\r\n"
    named = nats_wire.request(b"a", b"in.1", b"hello", "7-1")
    headers = b"NATS/1.0\r\nNats-Msg-Id: 7-1\r\n\r\n"
    assert named == b"HPUB a in.1 %d %d\r\n%bhello\r\n" % (len(headers), len(headers) + 5, headers)
