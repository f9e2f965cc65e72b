"""The devices of the host's namespace, followed by netlink; one socket, no polling."""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from achelous_shared.bpf import NetNs
from achelous_vswitch import netlink
from achelous_vswitch.plan import Link

log = logging.getLogger(__name__)

_DATAGRAM: Final = 1 << 18
_ROOM: Final = 8 << 20
_ASK_AGAIN_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Underlay:
    """The device that carries VXLAN. ``vtep``: its IPv4 address, 4 bytes; ``prefix_len``: of its
    network, 0 to 32."""

    ifindex: int
    mtu: int
    vtep: bytes
    prefix_len: int = 32


class HostDevices(Protocol):
    """What the agent asks of a host's devices: a seam, as simulated hosts have none."""

    known: asyncio.Event
    """Set once the first full picture is there."""

    @property
    def links(self) -> dict[str, Link]:
        """The links by name."""

    @property
    def underlay(self) -> Underlay | None:
        """The underlay, once its device is there and has an address."""

    async def run(self, on_change: Callable[[], None]) -> None:
        """Follow them until cancelled; ``on_change`` is called after every change."""


class Devices:
    """All links by name, and the underlay."""

    def __init__(self, netns: NetNs, underlay_device: str) -> None:
        self._netns = netns
        self._underlay_device = underlay_device
        self._links: dict[int, Link] = {}
        self._addresses: dict[int, dict[bytes, int]] = {}
        self._sequence = 0
        self._changed: Callable[[], None] = lambda: None
        self.known = asyncio.Event()
        """Set once the first full picture is there."""

    @property
    def links(self) -> dict[str, Link]:
        """The links by name."""
        return {link.name: link for link in self._links.values()}

    @property
    def underlay(self) -> Underlay | None:
        """The underlay, once its device is there and has an address."""
        link = self.links.get(self._underlay_device)
        addresses = self._addresses.get(link.ifindex) if link else None
        if link is None or not addresses:
            return None
        return Underlay(link.ifindex, link.mtu, *next(iter(addresses.items())))

    async def run(self, on_change: Callable[[], None]) -> None:
        """Follow the namespace until cancelled; ``on_change`` is called after every change."""
        self._changed = on_change
        rtnetlink = await self._netns.run(_open_socket)
        loop = asyncio.get_running_loop()
        try:
            self._ask_everything(rtnetlink)
            loop.add_reader(rtnetlink.fileno(), self._read, rtnetlink)
            await loop.create_future()
        finally:
            loop.remove_reader(rtnetlink.fileno())
            rtnetlink.close()

    def _read(self, rtnetlink: socket.socket) -> None:
        before = self._picture()
        try:
            while True:
                for event in netlink.parse(rtnetlink.recv(_DATAGRAM)):
                    self._take(event, rtnetlink)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            log.warning("netlink lost messages: asking for everything again")
            self._ask_everything(rtnetlink)
        if self.known.is_set() and self._picture() != before:
            self._changed()

    def _picture(self) -> tuple[bool, dict[int, Link], Underlay | None]:
        return self.known.is_set(), dict(self._links), self.underlay

    def _ask_everything(self, rtnetlink: socket.socket) -> None:
        self._links.clear()
        self._addresses.clear()
        self.known.clear()
        self._sequence += 2  # links, then addresses: one answer at a time
        rtnetlink.send(netlink.ask_for_links(self._sequence))

    def _take(self, event: netlink.Event, rtnetlink: socket.socket) -> None:
        match event:
            case netlink.LinkSeen(link):
                self._links[link.ifindex] = link
            case netlink.LinkGone(ifindex):
                self._links.pop(ifindex, None)
                self._addresses.pop(ifindex, None)
            case netlink.AddressSeen(ifindex, address, prefix_len):
                self._addresses.setdefault(ifindex, {})[address] = prefix_len
            case netlink.AddressGone(ifindex, address):
                self._addresses.get(ifindex, {}).pop(address, None)
            case netlink.AnswerDone(sequence) if sequence == self._sequence:
                rtnetlink.send(netlink.ask_for_addresses(self._sequence + 1))
            case netlink.AnswerDone(sequence) if sequence == self._sequence + 1:
                self.known.set()
            case netlink.AnswerRefused():  # an answer that nobody waits for is still being given
                loop = asyncio.get_running_loop()
                loop.call_later(_ASK_AGAIN_S, self._ask_everything, rtnetlink)


def _open_socket() -> socket.socket:
    rtnetlink = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
    )
    rtnetlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
    rtnetlink.bind((0, netlink.RTMGRP_LINK | netlink.RTMGRP_IPV4_IFADDR))
    return rtnetlink
