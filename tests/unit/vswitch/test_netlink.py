"""rtnetlink's bytes, as the kernel writes them."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from achelous_vswitch import netlink
from achelous_vswitch.netlink import AddressSeen, AnswerDone, AnswerRefused, LinkGone, LinkSeen
from achelous_vswitch.plan import Link


def attribute(kind: int, value: bytes) -> bytes:
    padding = b"\0" * (-len(value) % 4)
    return struct.pack("=HH", 4 + len(value), kind) + value + padding


def message(kind: int, body: bytes, sequence: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, sequence, 0) + body


def link(*attributes: bytes, ifindex: int = 5, family: int = 0, kind: int = 16) -> bytes:
    return message(kind, struct.pack("=BxHiII", family, 0, ifindex, 0, 0) + b"".join(attributes))


NAME = attribute(3, b"v00\0")
MTU = attribute(4, struct.pack("=I", 1500))
VETH = attribute(18 | 0x8000, attribute(1, b"veth\0"))
ELSEWHERE = attribute(37, struct.pack("=i", 0))


def test_a_veth_whose_peer_is_elsewhere_is_told_from_other_links() -> None:
    for attributes, peer in (((VETH, ELSEWHERE), True), ((VETH,), False), ((ELSEWHERE,), False)):
        (event,) = netlink.parse(link(NAME, MTU, *attributes))
        assert event == LinkSeen(Link(5, "v00", 1500, peer))


def test_what_a_bridge_says_of_a_link_is_not_about_the_link() -> None:
    assert list(netlink.parse(link(NAME, family=7) + link(NAME, family=7, kind=17))) == []


def test_several_messages_in_one_datagram() -> None:
    address = message(20, struct.pack("=BBBBI", 2, 24, 0, 0, 5) + attribute(2, b"\x0a\0\0\1"))
    data = link(kind=17) + address + message(3, b"\0" * 4, 8) + message(2, b"\0" * 4, 9)
    expected = [LinkGone(5), AddressSeen(5, b"\x0a\0\0\1", 24), AnswerDone(8), AnswerRefused(9)]
    assert list(netlink.parse(data)) == expected


@given(st.binary(max_size=200))
def test_any_tail_is_survived(tail: bytes) -> None:
    events = list(netlink.parse(link(NAME) + message(99, tail)))
    assert events[:1] == [LinkSeen(Link(5, "v00", 0, False))]
