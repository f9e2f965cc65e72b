"""Frames are the stream, whatever chunks it comes in."""

from hypothesis import given
from hypothesis import strategies as st

from achelous_lab.nats_frames import Frame, FrameSplitter

LINE = Frame(b'INFO {"a":1}\r\n')
MESSAGE = Frame(b"MSG routes.7 1 4\r\nab\r\n\r\n", b"routes.7")
WITH_REPLY = Frame(b"MSG routes.8 1 _INBOX.x 0\r\n\r\n", b"routes.8")
WITH_HEADERS = Frame(
    b"HMSG routes.9 2 _INBOX.y 22 27\r\nNATS/1.0\r\nMSG: x\r\n\r\n\r\nhello\r\n", b"routes.9"
)


@given(
    st.lists(st.sampled_from([LINE, MESSAGE, WITH_REPLY, WITH_HEADERS]), max_size=8),
    st.lists(st.integers(1, 40), min_size=1),
)
def test_frames_come_out_as_they_went_in(frames: list[Frame], sizes: list[int]) -> None:
    stream = b"".join(frame.data for frame in frames)
    splitter, found, at = FrameSplitter(), [], 0
    while at < len(stream):
        for size in sizes:
            found += splitter.feed(stream[at : at + size])
            at += size
    assert found == frames


def test_what_is_not_complete_is_kept() -> None:
    splitter = FrameSplitter()
    assert splitter.feed(WITH_HEADERS.data[:-1]) == []
    assert splitter.feed(WITH_HEADERS.data[-1:] + b"PI") == [WITH_HEADERS]
    assert splitter.feed(b"NG\r\n") == [Frame(b"PING\r\n")]
