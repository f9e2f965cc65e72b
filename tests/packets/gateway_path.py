"""The gateway's program with its maps filled in by hand."""

import time
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final

import numpy as np
from packets.datapath import GATEWAY_VTEP, OWN_VTEP, PEER_VTEP, UNDERLAY, VNI
from packets.frames import guest
from packets.outcome import Outcome, run
from packets.tables import clear, mac_bytes

from achelous_gateway.shared_table import SharedTable, map_sizes
from achelous_shared.bpf import BpfMap, BpfObject
from achelous_shared.routes import ROUTE, RouteOp, ip_bytes

OTHER_GATEWAY: Final = "198.18.0.4"
CAPACITY: Final = 16
SMALL: Final = {**map_sizes(CAPACITY), "vteps": 16}


@dataclass(slots=True)
class GatewayPath:
    """A loaded gateway in a fleet of two hosts and one other gateway, its tables emptied."""

    loaded: BpfObject
    routes: SharedTable = field(init=False)

    def __post_init__(self) -> None:
        clear(self.loaded)
        self.routes = SharedTable(CAPACITY, self.loaded.maps)
        self.configure(vtep=int(IPv4Address(GATEWAY_VTEP)), underlay_ifindex=UNDERLAY)
        for address, kind in ((OWN_VTEP, 1), (PEER_VTEP, 1), (OTHER_GATEWAY, 2)):
            self.table("vteps").update(int(IPv4Address(address)), kind)

    def table(self, name: str) -> BpfMap:
        return self.loaded.maps[name]

    def configure(self, **fields: int) -> None:
        """Change fields of config[0]."""
        view = self.table("config").mmap()
        for name, value in fields.items():
            view[0][name] = value

    def heartbeat(self, seconds_ago: float) -> None:
        """The agent vouched for its tables that long ago."""
        self.configure(heartbeat_ns=time.monotonic_ns() - int(seconds_ago * 1e9))

    def route(
        self, ip: str, vtep: str = PEER_VTEP, *, vni: int = VNI, mac: str | None = None
    ) -> None:
        """A route to the guest of that address."""
        entry = np.zeros(1, ROUTE)
        entry["ip"] = np.frombuffer(ip_bytes(ip), np.uint8)
        entry["op"], entry["revision"] = RouteOp.UPSERT, 1
        entry["vtep"] = int(IPv4Address(vtep))
        entry["mac"] = np.frombuffer(mac_bytes(mac or guest(ip).mac), np.uint8)
        self.routes.apply(vni, entry)

    def receive(self, frame: bytes) -> Outcome:
        """The frame arrives from the underlay."""
        return run(self.loaded, "relay", frame)
