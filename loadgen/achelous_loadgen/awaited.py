"""What is awaited of every gateway: where destinations lead, one of them or a question's worth."""

import asyncio
import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from achelous_shared import rsp
from achelous_shared.records import offset_of
from achelous_shared.rsp import KeyType, ReplyType

KEY_BYTES: Final = 16
MAC_BYTES: Final = 6
_VTEP_BYTES: Final = 4
NOWHERE: Final = bytes(_VTEP_BYTES)
_REQUEST: Final = struct.Struct(">HHIB3x16s")
MAPPED: Final = b"\0" * 10 + b"\xff\xff"
"""Before an IPv4 address in a key."""


_TYPE: Final = offset_of(rsp.REPLY, "type")
_VTEP_END: Final = offset_of(rsp.REPLY, "next_hop") + KEY_BYTES
_VTEP: Final = slice(_VTEP_END - _VTEP_BYTES, _VTEP_END)
_MAC_AT: Final = offset_of(rsp.REPLY, "mac")
_MAC: Final = slice(_MAC_AT, _MAC_AT + MAC_BYTES)


class Targets(msgspec.Struct, frozen=True):
    """Destinations of one VPC and the vNICs they shall lead to, or lead to no more.

    Of n destinations ``keys`` has 16 bytes each and ``macs`` 6. A MAC is one vNIC's, so an address
    that was given to another vNIC meanwhile counts as let go of. ``vteps``: where they shall be, 4
    bytes each in network order; 0: nowhere.
    """

    vni: int
    keys: bytes
    macs: bytes
    vteps: bytes

    def __len__(self) -> int:
        return len(self.keys) // KEY_BYTES


@dataclass(slots=True, eq=False)
class Group:
    """What is awaited together. ``left``: parts of it that some live gateway has not met."""

    left: int
    deadline: float
    """By the clock of the event loop."""
    done: "asyncio.Future[float]"

    def met(self, at: float) -> None:
        """One more part is in effect."""
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(at)

    def expire(self) -> None:
        """It took too long."""
        if not self.done.done():
            self.done.set_exception(TimeoutError())


class Wait(ABC):
    """A part of a group that is asked about as a whole. ``open``: a bit for each gateway that has
    not met it."""

    __slots__ = ("group", "named", "open", "request", "since", "tails", "vni")

    def __init__(self, vni: int, tails: list[int], request: bytes, group: Group, gateways: int):
        self.vni = vni
        self.tails = tails
        """Of its destinations, by which deltas name them."""
        self.request = request
        """Its entries of a request."""
        self.group = group
        self.open = (1 << gateways) - 1
        self.since = 0.0
        """By the clock of the event loop."""
        self.named = False
        """Whether a delta has named it, or some of it."""

    @abstractmethod
    def take(self, gateway: int, replies: bytes) -> None:
        """Compare with a gateway's reply entries, one for each of its destinations."""

    @abstractmethod
    def missing(self, gateway: int) -> int:
        """How many destinations a gateway has not met."""


class One(Wait):
    """One destination: plain bytes are quicker than arrays of one."""

    __slots__ = ("_mac", "_vtep")

    def __init__(self, targets: Targets, group: Group, gateways: int) -> None:
        key = targets.keys
        kind = KeyType.IPV4 if key.startswith(MAPPED) else KeyType.IPV6
        request = _REQUEST.pack(rsp.MAGIC, 0, targets.vni, kind, key)
        super().__init__(targets.vni, [tail(key)], request, group, gateways)
        self._mac, self._vtep = targets.macs, targets.vteps

    def take(self, gateway: int, replies: bytes) -> None:
        """See `Wait`."""
        if not replies.startswith(self.request):
            return
        same = replies[_TYPE] == ReplyType.ROUTE and replies[_MAC] == self._mac
        if not same if self._vtep == NOWHERE else same and replies[_VTEP] == self._vtep:
            self.open &= ~(1 << gateway)

    def missing(self, gateway: int) -> int:
        """See `Wait`."""
        return self.open >> gateway & 1


class Many(Wait):
    """`rsp.MAX_ENTRIES` destinations at most. What was met once stays met."""

    __slots__ = ("_macs", "_requests", "_unmet", "_vteps")

    def __init__(self, targets: Targets, group: Group, gateways: int) -> None:
        keys = np.frombuffer(targets.keys, np.uint8).reshape(-1, KEY_BYTES)
        self._requests = rsp.requests(np.full(len(keys), targets.vni), keys)
        self._macs = np.frombuffer(targets.macs, np.uint8).reshape(-1, MAC_BYTES)
        self._vteps = np.frombuffer(targets.vteps, ">u4")
        self._unmet = np.ones((gateways, len(keys)), np.bool_)
        request = self._requests.tobytes()
        super().__init__(targets.vni, tails(keys), request, group, gateways)

    def take(self, gateway: int, replies: bytes) -> None:
        """See `Wait`."""
        entries = np.frombuffer(replies, rsp.REPLY)
        if not np.array_equal(entries["key"], self._requests["key"]):
            return
        same = (entries["mac"] == self._macs).all(axis=1) & (entries["type"] == ReplyType.ROUTE)
        hops = np.ascontiguousarray(entries["next_hop"][:, -_VTEP_BYTES:]).view(">u4").reshape(-1)
        met = np.where(self._vteps == 0, ~same, same & (hops == self._vteps))
        self._unmet[gateway] &= ~met
        if not self._unmet[gateway].any():
            self.open &= ~(1 << gateway)

    def missing(self, gateway: int) -> int:
        """See `Wait`."""
        return int(self._unmet[gateway].sum())


def waits(targets: Targets, group: Group, gateways: int) -> list[Wait]:
    """The parts of what is awaited; the group's ``left`` becomes their number."""
    if len(targets) == 1:
        found: list[Wait] = [One(targets, group, gateways)]
    else:
        found = [
            Many(_part(targets, at, at + rsp.MAX_ENTRIES), group, gateways)
            for at in range(0, len(targets), rsp.MAX_ENTRIES)
        ]
    group.left = len(found)
    return found


def _part(targets: Targets, begin: int, end: int) -> Targets:
    return Targets(
        targets.vni,
        targets.keys[begin * KEY_BYTES : end * KEY_BYTES],
        targets.macs[begin * MAC_BYTES : end * MAC_BYTES],
        targets.vteps[begin * _VTEP_BYTES : end * _VTEP_BYTES],
    )


def tail(key: bytes) -> int:
    """The last 8 bytes of a key: what tells addresses of one VPC apart well enough."""
    return int.from_bytes(key[8:], "little")


def tails(keys: np.ndarray) -> list[int]:
    """`tail` of each of ``keys`` (n, 16)."""
    found: list[int] = np.ascontiguousarray(keys[:, 8:]).view("<u8").reshape(-1).tolist()
    return found
