"""What fuzzing found worth keeping, once more; and the same target driven by hypothesis."""

from pathlib import Path

import pytest
from fuzz.rsp_target import RspTarget
from hypothesis import given
from hypothesis import strategies as st

CORPUS = sorted((Path(__file__).parents[2] / "fuzz/corpus/rsp").iterdir())
TARGET = RspTarget()
SEEDS = [path.read_bytes() for path in CORPUS]


def test_the_corpus_holds_what_must_hold_of_any_bytes() -> None:
    assert len(SEEDS) > 10
    for data in SEEDS:
        TARGET(data)


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
    st.integers(0, 20),
    st.binary(max_size=20),
)
def test_so_does_what_lies_near_it(
    seed: bytes, edits: list[tuple[int, int]], cut: int, more: bytes
) -> None:
    data = bytearray(seed)
    for at, value in edits:
        if data:
            data[at % len(data)] = value
    TARGET(bytes(data[: len(data) - cut] if cut else data))
    TARGET(bytes(data) + more)


@pytest.mark.parametrize("data", [b"", b"\0" * 16, b"\xff" * 100])
def test_and_plain_noise(data: bytes) -> None:
    TARGET(data)
