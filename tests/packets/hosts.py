"""Hosts in namespaces that run the real programs without an agent: tables are filled in by hand."""

import socket
from collections.abc import Mapping
from contextlib import ExitStack, closing
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
class Hosts:
    """Makes hosts and gateways on the lab's underlay; leaving it detaches and unloads all."""

    network: Network
    objects: Path
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
        attached = await self._node(name, vtep, "vswitch", _SIZES)
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
        attached = await self._node(name, GATEWAY_VTEP, "gateway", {})
        gateway = GatewayPath(attached.loaded)
        gateway.configure(underlay_ifindex=attached.attach("relay", UNDERLAY_DEVICE))
        return gateway

    async def _node(self, name: str, vtep: str, kind: str, sizes: Mapping[str, int]) -> Attachments:
        node = await self.network.underlay.node(name, IPv4Address(vtep))
        loaded = BpfObject.open(self.objects / f"{kind}.bpf.o", pin_dir=None, max_entries=sizes)
        self.stack.enter_context(loaded)
        inside = self.stack.enter_context(closing(NetNs(node.namespace.path)))
        return Attachments(node, loaded, inside, self.stack)
