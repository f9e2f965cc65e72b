"""RSP on bytes: what is encoded comes back, and nothing else is accepted."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from achelous_shared import rsp, rsp_batch
from achelous_shared.rsp import MessageType, RspError

KEYS = st.lists(
    st.tuples(st.integers(1, 2**24 - 1), st.binary(min_size=16, max_size=16)), max_size=64
)


def request(*keys: tuple[int, bytes], message_id: int = 7) -> bytes:
    vnis = [vni for vni, _ in keys]
    addresses = np.frombuffer(b"".join(key for _, key in keys), "u1").reshape(-1, 16)
    return rsp.encode(MessageType.REQUEST, message_id, rsp.requests(vnis, addresses))


ONE = request((0x010203, bytes(range(16))))


def test_a_request_has_the_documented_bytes() -> None:
    header = struct.pack(">HBBIIHH", 1, 2, 1, 7, 44, 0, 0)
    entry = struct.pack(">HHIB3x", 0x5253, 0, 0x010203, 2) + bytes(range(16))
    assert header + entry == ONE


@given(KEYS, st.integers(0, 2**32 - 1))
def test_what_is_encoded_comes_back(keys: list[tuple[int, bytes]], message_id: int) -> None:
    message = rsp.decode(request(*keys, message_id=message_id), MessageType.REQUEST)
    assert message.id == message_id
    assert [(int(e["vni"]), e["key"].tobytes()) for e in message.entries] == keys


@given(st.integers(0, len(ONE) - 1))
def test_a_truncated_message_is_refused(length: int) -> None:
    with pytest.raises(RspError, match="bytes"):
        rsp.decode(ONE[:length], MessageType.REQUEST)


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_valid_but_never_crashes(data: bytes) -> None:
    try:
        message = rsp.decode(data, MessageType.REPLY)
    except RspError:
        return
    assert len(data) == rsp.HEADER_BYTES + message.entries.nbytes


@pytest.mark.parametrize(
    ("offset", "value", "says"),
    [
        (2, 9, "version 9, this program speaks 2"),
        (3, 2, "message type 2, expected 1"),
        (1, 2, "2 entries take 72"),
        (8, 1, "size field"),
        (16, 0, "magic"),
        (24, 9, "key type"),
    ],
)
def test_each_wrong_field_is_named(offset: int, value: int, says: str) -> None:
    data = bytearray(ONE)
    data[offset] = value
    with pytest.raises(RspError, match=says):
        rsp.decode(bytes(data), MessageType.REQUEST)


def test_more_entries_than_a_message_holds_are_refused() -> None:
    entries = np.zeros(rsp.MAX_ENTRIES + 1, rsp.REQUEST)
    with pytest.raises(RspError, match="at most 1024"):
        rsp.encode(MessageType.REQUEST, 1, entries)


def damaged(data: bytes, at: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


REQUESTS = KEYS.map(lambda keys: request(*keys))


@given(
    st.lists(
        st.one_of(
            REQUESTS,
            st.binary(max_size=60),
            st.builds(damaged, REQUESTS, st.integers(0, 2000)),
        ),
        max_size=6,
    )
)
def test_requests_decoded_together_are_as_decoded_one_by_one(messages: list[bytes]) -> None:
    together = rsp_batch.decode_requests(messages)
    at = 0
    for message, head in zip(messages, together.heads, strict=True):
        try:
            alone = rsp.decode(message, MessageType.REQUEST)
        except RspError:
            assert head is None
            continue
        assert head == (alone.id, len(alone.entries), alone.options)
        assert (together.entries[at : at + len(alone.entries)] == alone.entries).all()
        at += len(alone.entries)
    assert at == len(together.entries)
