"""A host without devices: what its document asks for is there at once."""

import asyncio
import itertools
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final

from achelous_shared.messages import HostDocument
from achelous_shared.names import port_ifname
from achelous_vswitch.devices import Underlay
from achelous_vswitch.plan import Link

_UNDERLAY_IFINDEX: Final = 2
_GUEST_MTU: Final = 1500
_UNDERLAY_MTU: Final = 1600


class SimulatedDevices:
    """The links of a host whose hypervisor is never late."""

    def __init__(self, vtep: IPv4Address) -> None:
        self.known = asyncio.Event()
        self.known.set()
        self.links: dict[str, Link] = {}
        self.underlay = Underlay(_UNDERLAY_IFINDEX, _UNDERLAY_MTU, vtep.packed)
        self._ifindexes = itertools.count(_UNDERLAY_IFINDEX + 1)

    def plug(self, document: HostDocument) -> None:
        """Have a link for each vNIC of the document, and no other; those that stay are the same."""
        names = [port_ifname(port.vnic_id) for port in document.ports]
        self.links = {name: self.links.get(name) or self._link(name) for name in names}

    def _link(self, name: str) -> Link:
        return Link(next(self._ifindexes), name, _GUEST_MTU, True)

    async def run(self, on_change: Callable[[], None]) -> None:
        """Until cancelled; documents come with a wake-up of their own."""
        on_change()
        await asyncio.get_running_loop().create_future()
