"""The underlay: machines, each a namespace, on one switch."""

from contextlib import ExitStack
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from types import TracebackType
from typing import Final, Self

from pyroute2 import IPRoute

from achelous_lab.netns import links
from achelous_lab.netns.links import PortState
from achelous_lab.netns.namespace import Namespace
from achelous_lab.waiting import wait_until

UNDERLAY_NETWORK: Final = IPv4Network("198.18.0.0/16")
UNDERLAY_DEVICE: Final = "underlay0"
_BRIDGE: Final = "switch"


class Node:
    """A host or a gateway: a namespace with the device `underlay0` and one underlay address."""

    def __init__(self, namespace: Namespace, ip: IPv4Address, port: str, switch: Namespace) -> None:
        self.namespace = namespace
        self.ip = ip
        self._port = port
        self._switch = switch

    @property
    def name(self) -> str:
        return self.namespace.name

    async def down(self) -> None:
        """Cut it off as a dead machine is: no packet in or out, and nobody sees a carrier go."""
        await self._switch.netlink(lambda n: links.set_port(n, self._port, PortState.OFF))

    async def up(self) -> None:
        await self._switch.netlink(lambda n: links.set_port(n, self._port, PortState.ON))


class Underlay:
    """The switch and its nodes, in namespaces `<prefix>-net` and `<prefix>-<node>`.

    MTU 1650, addresses of 198.18.0.0/16. Removes all of it at the end, also after a failure.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._switch = Namespace(f"{prefix}-net")
        self._nodes: dict[str, Node] = {}

    async def __aenter__(self) -> Self:
        self._switch = await Namespace.create(self._switch.name)
        await self._switch.call(partial(links.set_bridge_firewall, links.BridgeFirewall.OFF))
        await self._switch.netlink(lambda n: links.add_bridge(n, _BRIDGE, links.UNDERLAY_MTU))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        with ExitStack() as removals:  # all of them, whichever fails
            for namespace in (self._switch, *(node.namespace for node in self._nodes.values())):
                removals.callback(namespace.remove)

    async def node(self, name: str, ip: IPv4Address) -> Node:
        """A machine that can reach the others; `name` is at most 15 characters."""
        if ip not in UNDERLAY_NETWORK:
            raise ValueError(f"underlay address {ip} of {name} is not in {UNDERLAY_NETWORK}")
        namespace = await Namespace.create(f"{self._prefix}-{name}")
        node = Node(namespace, ip, name, self._switch)
        self._nodes[name] = node
        await self._switch.netlink(
            lambda n: links.add_port(
                n,
                name,
                bridge=links.index_of(n, _BRIDGE),
                far=namespace,
                far_name=UNDERLAY_DEVICE,
                mtu=links.UNDERLAY_MTU,
            )
        )
        await _configure(namespace, ip)
        await wait_until(
            lambda: self._switch.netlink(lambda n: links.is_up(n, name)),
            f"the carrier of {namespace.name}",
            timeout=5,
        )
        return node

    async def join(self, one: Node, other: Node) -> None:
        """Take two machines from the switch and join them by one veth pair: they reach each other
        at the cost of a wire, and nobody else."""
        gone = [name for name, node in self._nodes.items() if node in (one, other)]

        def unplug(netlink: IPRoute) -> None:
            for name in gone:
                links.remove_link(netlink, name)

        def lay(netlink: IPRoute) -> None:
            with other.namespace.opened() as fd:
                peer = {"ifname": UNDERLAY_DEVICE, "net_ns_fd": fd, "mtu": links.UNDERLAY_MTU}
                netlink.link(
                    "add", ifname=UNDERLAY_DEVICE, kind="veth", mtu=links.UNDERLAY_MTU, peer=peer
                )

        await self._switch.netlink(unplug)
        await one.namespace.netlink(lay)
        for node in (one, other):
            await _configure(node.namespace, node.ip)
        await wait_until(
            lambda: one.namespace.netlink(lambda n: links.is_up(n, UNDERLAY_DEVICE)),
            f"the carrier of {one.name}",
            timeout=5,
        )

    async def remove(self, node: Node) -> None:
        """Take a machine away for good."""
        name = next(name for name, known in self._nodes.items() if known is node)
        del self._nodes[name]
        await self._switch.netlink(lambda n: links.remove_link(n, name))
        node.namespace.remove()


async def _configure(namespace: Namespace, ip: IPv4Address) -> None:
    address = IPv4Interface((ip, UNDERLAY_NETWORK.prefixlen))
    await namespace.netlink(lambda n: links.configure(n, UNDERLAY_DEVICE, address=address))
