"""Messages on bytes: versions are refused by number, unknown fields of a version are ignored."""

from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from achelous_shared.messages import (
    BadMessage,
    HostApplied,
    RouteDelta,
    UnknownVersion,
    decode,
    encode,
)

DELTA = RouteDelta(vni=5, base=1, revision=2, entries=b"abc")


def test_a_message_comes_back() -> None:
    report = HostApplied(
        host_id=uuid4(),
        revision=3,
        fleet_revision=1,
        waiting=(uuid4(),),
        failed={UUID(int=1): "why"},
        at=1.5,
    )
    assert decode(encode(report), HostApplied) == report


def test_an_unknown_version_is_refused_by_number() -> None:
    data = msgspec.msgpack.encode(msgspec.structs.asdict(DELTA) | {"v": 99})
    with pytest.raises(UnknownVersion, match="version 99, this program speaks version 1"):
        decode(data, RouteDelta)


def test_a_field_of_a_later_release_is_ignored() -> None:
    data = msgspec.msgpack.encode(msgspec.structs.asdict(DELTA) | {"later": [1, 2]})
    assert decode(data, RouteDelta) == DELTA


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x01\x02\x03", encode(DELTA)[:-1]])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(BadMessage):
        decode(data, RouteDelta)


@given(st.binary(max_size=100))
def test_garbage_raises_nothing_else(data: bytes) -> None:
    try:
        decode(data, RouteDelta)
    except BadMessage:
        return
