"""The hash of a destination, alone and in batches; the kernel's is compared in tests/packets."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from achelous_shared.rsp_hash import destination_hash, destination_hashes

KEYS = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.binary(min_size=16, max_size=16)))


@given(KEYS)
def test_a_batch_has_the_hashes_of_its_destinations(keys: list[tuple[int, bytes]]) -> None:
    vnis = np.array([vni for vni, _ in keys], np.uint32)
    ips = np.frombuffer(b"".join(ip for _, ip in keys), np.uint8).reshape(-1, 16)
    assert destination_hashes(vnis, ips).tolist() == [destination_hash(*key) for key in keys]


@given(st.integers(0, 2**24 - 1), st.lists(st.integers(0, 2**32 - 1)), st.booleans())
def test_ipv4_destinations_of_one_vpc_have_theirs(
    vni: int, numbers: list[int], mixed: bool
) -> None:
    ips = [b"\0" * 10 + b"\xff\xff" + number.to_bytes(4) for number in numbers]
    ips += [b"\x20" + bytes(15)] * mixed
    found = destination_hashes(vni, np.frombuffer(b"".join(ips), np.uint8).reshape(-1, 16))
    assert found.tolist() == [destination_hash(vni, ip) for ip in ips]


def test_addresses_that_follow_each_other_rarely_meet() -> None:
    ips = np.zeros((100_000, 16), np.uint8)
    ips[:, 12:] = np.arange(100_000, dtype=">u4").view(np.uint8).reshape(-1, 4)
    assert len(np.unique(destination_hashes(7, ips))) > 99_980
