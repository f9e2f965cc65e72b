"""Cables between guests and hosts: pulled from one host and put into another, the guest's TCP
stack untouched.

A cable is a bridge in a namespace of its own with one port to the guest and one to each host where
it is plugged in. One of the hosts' ports is on; moving the cable switches which.
"""

import socket
import struct
from functools import partial
from ipaddress import IPv4Address
from types import TracebackType
from typing import Final, Self

from pyroute2 import IPRoute

from achelous_lab.netns import links
from achelous_lab.netns.links import PortState
from achelous_lab.netns.namespace import Namespace
from achelous_lab.waiting import wait_until

GUEST_MTU: Final = 1500


class Cables:
    """All cables of a lab, in the namespace `<prefix>-cables`."""

    def __init__(self, prefix: str) -> None:
        self._namespace = Namespace(f"{prefix}-cables")
        self._made = 0

    async def __aenter__(self) -> Self:
        self._namespace = await Namespace.create(self._namespace.name)
        await self._namespace.call(partial(links.set_bridge_firewall, links.BridgeFirewall.OFF))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._namespace.remove()

    async def new(self, guest: Namespace, device: str) -> "Cable":
        """A cable whose one end is `device` in the guest's namespace; it leads nowhere yet."""
        self._made += 1
        cable = Cable(self._namespace, f"c{self._made}", guest, device)
        await self._namespace.netlink(cable.make)
        return cable


class Cable:
    """See the module. `plug` and `move` return when packets pass."""

    def __init__(self, namespace: Namespace, name: str, guest: Namespace, device: str) -> None:
        self._namespace = namespace
        self._name = name
        self._guest = guest
        self._device = device
        self._ports: dict[Namespace, str] = {}
        self._plugged = 0

    def make(self, netlink: IPRoute) -> None:
        """Bridge and guest's port; runs inside the cables' namespace."""
        bridge = links.add_bridge(netlink, self._name, GUEST_MTU)
        links.add_port(
            netlink,
            f"{self._name}-guest",
            bridge=bridge,
            far=self._guest,
            far_name=self._device,
            mtu=GUEST_MTU,
        )

    async def plug(self, host: Namespace, device: str) -> None:
        """Make `device` on the host and let packets pass."""
        await self.prepare(host, device)
        await self._set(self._ports[host], PortState.ON)

    async def prepare(self, host: Namespace, device: str) -> None:
        """Make `device` on a host, to which the cable can `move` later; no packets pass yet."""
        if host in self._ports:
            raise ValueError(f"cable {self._name} is plugged into {host.name} already")
        self._plugged += 1
        port = self._ports[host] = f"{self._name}-{self._plugged}"
        await self._namespace.netlink(
            lambda n: links.add_port(
                n,
                port,
                bridge=links.index_of(n, self._name),
                far=host,
                far_name=device,
                mtu=GUEST_MTU,
            )
        )
        await host.netlink(lambda n: n.link("set", index=links.index_of(n, device), state="up"))
        await wait_until(
            lambda: self._namespace.netlink(lambda n: links.is_up(n, port)),
            f"the carrier of {device} on {host.name}",
            timeout=5,
        )
        await self._set(port, PortState.OFF)

    async def _set(self, port: str, state: PortState) -> None:
        await self._namespace.netlink(lambda n: links.set_port(n, port, state))

    async def move(self, old: Namespace, new: Namespace, announce: IPv4Address) -> None:
        """From now on packets pass to and from `new`, where the cable was prepared.

        The guest announces `announce` by a gratuitous ARP, as hypervisors do after a migration.
        """
        before, after = self._ports[old], self._ports[new]

        def switch(netlink: IPRoute) -> None:
            links.set_port(netlink, before, PortState.OFF)
            links.set_port(netlink, after, PortState.ON)
            links.forget_macs(netlink, self._name)

        await self._namespace.netlink(switch)
        await self._guest.call(lambda: announce_by_arp(self._device, announce))

    async def unplug(self, host: Namespace) -> None:
        """Remove the host's device."""
        port = self._ports.pop(host)
        await self._namespace.netlink(lambda n: links.remove_link(n, port))

    async def remove(self) -> None:
        """Remove the cable with all its ends."""

        def remove(netlink: IPRoute) -> None:
            for port in [f"{self._name}-guest", *self._ports.values(), self._name]:
                links.remove_link(netlink, port)

        await self._namespace.netlink(remove)
        self._ports.clear()


class Wires(Cables):
    """Cables that cannot be moved and cost nothing: a veth pair each, as a hypervisor makes it."""

    async def new(self, guest: Namespace, device: str) -> "Wire":
        """A wire whose one end is `device` in the guest's namespace; it leads nowhere yet."""
        self._made += 1
        wire = Wire(self._namespace, f"w{self._made}", guest, device)
        await self._namespace.netlink(wire.make)
        return wire


class Wire(Cable):
    """See `Wires`: it is plugged in once."""

    def make(self, netlink: IPRoute) -> None:
        """Both ends; runs inside the cables' namespace, which keeps one until it is plugged in."""
        with self._guest.opened() as fd:
            peer = {"ifname": self._device, "net_ns_fd": fd, "mtu": GUEST_MTU}
            netlink.link("add", ifname=self._name, kind="veth", mtu=GUEST_MTU, peer=peer)

    async def prepare(self, host: Namespace, device: str) -> None:
        """Not possible: raises ValueError."""
        raise ValueError(f"wire {self._name} cannot move to {device} of {host.name}: take a Cable")

    async def plug(self, host: Namespace, device: str) -> None:
        """Make the other end `device` on the host."""

        def send_over(netlink: IPRoute) -> None:
            with host.opened() as fd:
                index = links.index_of(netlink, self._name)
                netlink.link("set", index=index, net_ns_fd=fd, ifname=device)

        await self._namespace.netlink(send_over)
        await host.netlink(lambda n: n.link("set", index=links.index_of(n, device), state="up"))
        await wait_until(
            lambda: host.netlink(lambda n: links.is_up(n, device)),
            f"the carrier of {device} on {host.name}",
            timeout=5,
        )

    async def remove(self) -> None:
        """Remove both ends."""
        await self._guest.netlink(lambda n: links.remove_link(n, self._device))


def announce_by_arp(device: str, ip: IPv4Address) -> None:
    """Send one gratuitous ARP request (RFC 5227, section 3); runs inside the guest's namespace."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((device, 0))
        mac: bytes = link.getsockname()[4]
        ethernet = b"\xff" * 6 + mac + struct.pack("!H", 0x0806)
        arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + ip.packed + b"\0" * 6 + ip.packed
        link.send(ethernet + arp)
