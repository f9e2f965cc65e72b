"""A host without devices: what its document asks for is there at once."""

import asyncio
import itertools
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address
from typing import Final

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

    def plug(self, names: Iterable[str]) -> None:
        """Have a link of each of these names, and no other; those that stay are the same."""
        self.links = {name: self.links.get(name) or self._link(name) for name in names}

    def _link(self, name: str) -> Link:
        return Link(next(self._ifindexes), name, _GUEST_MTU, True)

    async def run(self, on_change: Callable[[], None]) -> None:
        """Until cancelled; documents come with a wake-up of their own."""
        on_change()
        await asyncio.get_running_loop().create_future()
