"""Hosts in namespaces that run the real programs without an agent: tables are filled in by hand."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from packets.datapath import GATEWAY_VTEP, SMALL, Datapath, Port
from packets.frames import guest
from packets.gateway_path import GatewayPath

from achelous_lab.netns.guest import Guest, Nic
from achelous_lab.netns.links import UNDERLAY_MTU
from achelous_lab.netns.network import Network
from achelous_lab.netns.underlay import UNDERLAY_DEVICE, UNDERLAY_NETWORK, Node
from achelous_shared.bpf import BpfObject, NetNs, attach_tcx

_SIZES: Final = SMALL | {"sessions": 4096, "session_ring": 4096}


def ip6_of(ip: str) -> str:
    """The IPv6 address that a guest has beside that IPv4 address."""
    return f"fd00::{ip.rpartition('.')[2]}"


@dataclass(slots=True)
class Attachments:
    """Programs on devices of one node, for as long as the test runs."""

    node: Node
    loaded: BpfObject
    inside: NetNs
    stack: ExitStack

    def attach(self, program: str, device: str) -> int:
        """Returns the device's ifindex."""

        def work() -> int:
            index = socket.if_nametoindex(device)
            link = attach_tcx(self.loaded.programs[program], index, pin=None)
            self.stack.callback(link.close)
            return index

        return self.inside.run_sync(work)


@dataclass(frozen=True, slots=True)
class Host:
    """A node whose underlay device runs from_underlay."""

    network: Network
    attached: Attachments
    datapath: Datapath

    @property
    def vtep(self) -> str:
        return str(self.attached.node.ip)

    async def guest(self, name: str, ip: str) -> tuple[Guest, Port]:
        """A guest on this host, its port bound."""
        made = await self.network.guest(name)
        nic = Nic(guest(ip).mac, IPv4Interface(f"{ip}/24"), IPv4Address("10.0.0.1"))
        cable = await made.add_nic(self.network.cables, nic)
        await cable.plug(self.attached.node.namespace, f"v-{name}")
        return made, self.bind(f"v-{name}", ip, ip6=ip6_of(ip))

    def bind(self, device: str, ip: str, **fields: Any) -> Port:
        """What this device receives comes from the guest of that address. `fields`: of its port."""
        ifindex = self.attached.attach("from_guest", device)
        port = self.datapath.port(ip, ifindex=ifindex, **fields)
        self.datapath.table("port_by_ifindex").update(ifindex, port.slot)
        return port


@dataclass(slots=True)
class Programs:
    """The compiled objects in the kernel; leaving it unloads them.

    Of the vSwitch one host after the other uses the same copies, whose tables a `Datapath` empties:
    the kernel takes half a second to verify another.
    """

    objects: Path
    _stack: ExitStack = field(default_factory=ExitStack)
    _spare: list[BpfObject] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @contextmanager
    def vswitch(self) -> Iterator[BpfObject]:
        """For one host alone."""
        loaded = self._spare.pop() if self._spare else self._load_vswitch()
        try:
            yield loaded
        finally:
            self._spare.append(loaded)

    def gateway(self) -> BpfObject:
        """A new one, which whoever enters it unloads."""
        return BpfObject.open(self.objects / "gateway.bpf.o", pin_dir=None)

    def _load_vswitch(self) -> BpfObject:
        path = self.objects / "vswitch.bpf.o"
        return self._stack.enter_context(BpfObject.open(path, pin_dir=None, max_entries=_SIZES))


@dataclass(slots=True)
class Hosts:
    """Makes hosts and gateways on the lab's underlay; leaving it detaches all."""

    network: Network
    programs: Programs
    stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stack.close()

    async def host(self, name: str, vtep: str, *, peers: Mapping[str, int]) -> Host:
        """A host that knows `peers`: VTEP -> 1 host, 2 gateway."""
        attached = await self._node(name, vtep, self.programs.vswitch())
        datapath = Datapath(attached.loaded)
        datapath.configure(
            vtep=int(IPv4Address(vtep)),
            underlay_ifindex=attached.attach("from_underlay", UNDERLAY_DEVICE),
            underlay_mtu=UNDERLAY_MTU,
            underlay_prefix_len=96 + UNDERLAY_NETWORK.prefixlen,
        )
        for peer, kind in peers.items():
            datapath.vtep(peer, kind)
        return Host(self.network, attached, datapath)

    async def gateway(self, name: str) -> GatewayPath:
        """A gateway at GATEWAY_VTEP."""
        attached = await self._node(name, GATEWAY_VTEP, self.programs.gateway())
        gateway = GatewayPath(attached.loaded)
        gateway.configure(underlay_ifindex=attached.attach("relay", UNDERLAY_DEVICE))
        return gateway

    async def _node(
        self, name: str, vtep: str, loading: AbstractContextManager[BpfObject]
    ) -> Attachments:
        node = await self.network.underlay.node(name, IPv4Address(vtep))
        loaded = self.stack.enter_context(loading)
        inside = self.stack.enter_context(closing(NetNs(node.namespace.path)))
        return Attachments(node, loaded, inside, self.stack)
