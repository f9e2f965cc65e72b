"""Router advertisements that nobody asked for (RFC 4861, section 6.2.4).

A guest's kernel asks once, when its device comes up; what it was told holds for 18 hours at most.
So each vNIC with IPv6 is told again, long before that, in intervals drawn anew each time: vNICs
that came together do not stay together. The packet path answers those who ask.
"""

import asyncio
import logging
import random
import socket
import struct
import time
from fcntl import ioctl
from ipaddress import IPv6Address
from typing import Any, Final

import numpy as np

from achelous_shared.bpf import NetNs
from achelous_shared.names import ROUTER_LINK_LOCAL, ROUTER_MAC
from achelous_vswitch.dataplane import Array, Dataplane

log = logging.getLogger(__name__)

TICK_S: Final = 1.0
AT_ONCE: Final = 64
"""Sent in one tick at most; the others are sent in the next ones."""

_ALL_NODES: Final = IPv6Address("ff02::1").packed
_ALL_NODES_MAC: Final = bytes.fromhex("333300000001")
_FROM: Final = IPv6Address(ROUTER_LINK_LOCAL).packed
_IPV6: Final = struct.Struct("!HIHBB16s16s")  # the Ethernet type in front
_PSEUDO: Final = struct.Struct("!16s16sII")
_IFREQ: Final = struct.Struct("=16si20x")
_SIOCGIFNAME: Final = 0x8910
_ETHERTYPE, _ICMPV6, _HOP_LIMIT = 0x86DD, 58, 255


def advertisement(advert: bytes) -> bytes:
    """The frame to all nodes with a vNIC's prepared message, whose checksum is 0 still."""
    pseudo = _PSEUDO.pack(_FROM, _ALL_NODES, len(advert), _ICMPV6)
    check = _checksum(pseudo + advert)
    head = _IPV6.pack(_ETHERTYPE, 6 << 28, len(advert), _ICMPV6, _HOP_LIMIT, _FROM, _ALL_NODES)
    message = advert[:2] + check.to_bytes(2) + advert[4:]
    return _ALL_NODES_MAC + ROUTER_MAC + head + message


def _checksum(data: bytes) -> int:
    """RFC 1071, of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


class Schedule:
    """When each port slot is told next. A slot that has changed hands begins anew."""

    def __init__(self, slots: int, interval_s: float) -> None:
        self._interval_s = interval_s
        self._generation = np.zeros(slots, np.uint32)
        self._due = np.zeros(slots)

    def due(self, ports: Array, leases: Array, now: float) -> list[int]:
        """The slots whose turn has come, the longest waiting first, `AT_ONCE` at most.

        ``ports``, ``leases``: those of the packet path (slots,). Each gets its next turn a third to
        the whole of the interval from now.
        """
        fresh = np.flatnonzero(ports["generation"] != self._generation)
        self._generation[fresh] = ports["generation"][fresh]
        self._due[fresh] = [now + random.uniform(0, self._interval_s) for _ in fresh]  # noqa: S311  no secret
        told = (ports["generation"] % 2 == 1) & (leases["ready"] == 1) & (leases["advert_len"] > 0)
        late = np.flatnonzero(told & (self._due <= now))
        late = late[np.argsort(self._due[late])][:AT_ONCE]
        pauses = [random.uniform(1 / 3, 1) * self._interval_s for _ in late]  # noqa: S311  no secret
        self._due[late] = [now + pause for pause in pauses]
        return [int(slot) for slot in late]


class Advertiser:
    """Tells the guests of each vNIC with IPv6 of their router every ``interval_s`` or sooner."""

    def __init__(self, dataplane: Dataplane, netns: NetNs, interval_s: float) -> None:
        self._dataplane = dataplane
        self._netns = netns
        self._schedule = Schedule(len(dataplane.ports), interval_s)
        self._tick_s = min(TICK_S, interval_s / 3)

    async def run(self) -> None:
        """Advertise until cancelled."""
        link = await self._netns.run(_open_socket)
        with link:
            while True:
                ports, leases = self._dataplane.ports, self._dataplane.leases
                for slot in self._schedule.due(ports, leases, time.monotonic()):
                    _send(link, int(ports[slot]["ifindex"]), leases[slot])
                await asyncio.sleep(self._tick_s)


def _send(link: socket.socket, ifindex: int, lease: Any) -> None:
    advert = lease["advert"][: int(lease["advert_len"])].tobytes()
    try:
        link.sendto(advertisement(advert), (_name_of(link, ifindex), 0))
    except OSError as error:  # the device is about to go, or its queue is full: another time
        log.debug("router advertisement on device %d: %s", ifindex, error)


def _name_of(link: socket.socket, ifindex: int) -> str:
    """Of a device in the namespace of the socket; netdevice(7)."""
    answer = ioctl(link, _SIOCGIFNAME, _IFREQ.pack(b"", ifindex))
    name: bytes = _IFREQ.unpack(answer)[0]
    return name.rstrip(b"\0").decode()


def _open_socket() -> socket.socket:
    """Sends frames on any device of the namespace, and receives nothing."""
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
