"""Links and IPv4 addresses of a namespace as the kernel tells them: bytes in, values out.

The few attributes that the agent needs of rtnetlink(7), read by hand: a host has a thousand
devices, each of whose messages says a hundred things more.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from achelous_vswitch.plan import Link

RTMGRP_LINK: Final = 1
RTMGRP_IPV4_IFADDR: Final = 0x10

_MESSAGE: Final = struct.Struct("=IHHII")  # struct nlmsghdr
_LINK: Final = struct.Struct("=BxHiII")  # struct ifinfomsg
_ADDRESS: Final = struct.Struct("=BBBBI")  # struct ifaddrmsg
_ATTRIBUTE: Final = struct.Struct("=HH")  # struct rtattr
_U32: Final = struct.Struct("=I")

_NLM_F_REQUEST_DUMP: Final = 0x301
_AF_UNSPEC, _AF_INET = 0, 2

_IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_LINK_NETNSID = 3, 4, 18, 37
_IFLA_INFO_KIND: Final = 1
_IFA_LOCAL: Final = 2
_TYPE: Final = 0x3FFF  # an attribute's type without its flags


class _Kind(IntEnum):
    """Message types of rtnetlink(7) and netlink(7)."""

    ERROR = 2
    DONE = 3
    NEWLINK = 16
    DELLINK = 17
    GETLINK = 18
    NEWADDR = 20
    DELADDR = 21
    GETADDR = 22


@dataclass(frozen=True, slots=True)
class LinkSeen:
    """A link is there, or was changed."""

    link: Link


@dataclass(frozen=True, slots=True)
class LinkGone:
    """A link is there no more."""

    ifindex: int


@dataclass(frozen=True, slots=True)
class AddressSeen:
    """An IPv4 address (4 bytes) of a link, and the length of its network's prefix, 0 to 32."""

    ifindex: int
    address: bytes
    prefix_len: int


@dataclass(frozen=True, slots=True)
class AddressGone:
    """An IPv4 address that a link has no more."""

    ifindex: int
    address: bytes


@dataclass(frozen=True, slots=True)
class AnswerDone:
    """The last message of the answer to the request with this sequence number."""

    sequence: int


@dataclass(frozen=True, slots=True)
class AnswerRefused:
    """The kernel cannot answer the request with this sequence number now."""

    sequence: int


Event = LinkSeen | LinkGone | AddressSeen | AddressGone | AnswerDone | AnswerRefused


def ask_for_links(sequence: int) -> bytes:
    """A request for all links."""
    return _request(_Kind.GETLINK, sequence, _LINK.pack(_AF_UNSPEC, 0, 0, 0, 0))


def ask_for_addresses(sequence: int) -> bytes:
    """A request for all IPv4 addresses."""
    return _request(_Kind.GETADDR, sequence, _ADDRESS.pack(_AF_INET, 0, 0, 0, 0))


def _request(kind: int, sequence: int, body: bytes) -> bytes:
    size = _MESSAGE.size + len(body)
    return _MESSAGE.pack(size, kind, _NLM_F_REQUEST_DUMP, sequence, 0) + body


def parse(data: bytes) -> Iterator[Event]:
    """The events in one datagram; what the agent has no use for is passed over."""
    at = 0
    while at + _MESSAGE.size <= len(data):
        length, kind, _, sequence, _ = _MESSAGE.unpack_from(data, at)
        event = _event(kind, sequence, data[at + _MESSAGE.size : at + length])
        if event is not None:
            yield event
        at += max(_MESSAGE.size, -(-length // 4) * 4)


def _event(kind: int, sequence: int, body: bytes) -> Event | None:
    match kind:
        case _Kind.NEWLINK | _Kind.DELLINK:
            family, _, ifindex, _, _ = _LINK.unpack_from(body)
            if family != _AF_UNSPEC:  # a bridge's or IPv6's word about a link, not the link itself
                return None
            if kind == _Kind.DELLINK:
                return LinkGone(ifindex)
            return _link(ifindex, dict(_attributes(body[_LINK.size :])))
        case _Kind.NEWADDR | _Kind.DELADDR:
            family, prefix_len, _, _, ifindex = _ADDRESS.unpack_from(body)
            local = dict(_attributes(body[_ADDRESS.size :])).get(_IFA_LOCAL)
            if family != _AF_INET or local is None:
                return None
            if kind == _Kind.DELADDR:
                return AddressGone(ifindex, local)
            return AddressSeen(ifindex, local, prefix_len)
        case _Kind.DONE:
            return AnswerDone(sequence)
        case _Kind.ERROR:
            return AnswerRefused(sequence)
    return None


def _link(ifindex: int, attributes: dict[int, bytes]) -> Event | None:
    name = attributes.get(_IFLA_IFNAME)
    if name is None:
        return None
    kind = dict(_attributes(attributes.get(_IFLA_LINKINFO, b""))).get(_IFLA_INFO_KIND, b"")
    # redirect_peer refuses a veth whose ends share a namespace: only then is there no netns id.
    peer = kind.rstrip(b"\0") == b"veth" and _IFLA_LINK_NETNSID in attributes
    mtu = _U32.unpack(attributes[_IFLA_MTU])[0] if _IFLA_MTU in attributes else 0
    return LinkSeen(Link(ifindex, name.rstrip(b"\0").decode(errors="replace"), mtu, peer))


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        yield kind & _TYPE, data[at + _ATTRIBUTE.size : at + length]
        at += max(_ATTRIBUTE.size, -(-length // 4) * 4)
