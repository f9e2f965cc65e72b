"""What a host knows: its vNICs, routes, fleet and settings, as its documents say."""

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from model.rules import Rule
from model.wire import Address

ROUTER_MAC: Final = bytes.fromhex("0eace1000001")
ROUTER_LINK_LOCAL: Final = IPv6Address("fe80::cac:e1ff:fe00:1")
NOBODY: Final = IPv6Address("::")
SHARDS, SLOTS = 64, 1024
"""Of VPCs, by VNI; of each, rendezvous slots for its gateways."""


@dataclass(slots=True, eq=False)
class VNic:
    """A vNIC on this host. `bound`: how often it came here; 0 while it is not here."""

    slot: int
    vni: int
    mac: bytes
    ip4: IPv4Address
    net4: IPv4Network
    router4: IPv4Address
    ip6: IPv6Address | None
    net6: IPv6Network
    router6: IPv6Address
    mtu: int
    identity: int
    session_limit: int
    rules_in: list[Rule]
    rules_out: list[Rule]
    rules_version: int = 1
    generation: int = 1
    """Odd while it is here."""

    @property
    def here(self) -> bool:
        return self.generation % 2 == 1

    def address(self, version: int) -> Address:
        """Its address of that version; the unspecified one if it has none."""
        if version == 4:
            return self.ip4
        return self.ip6 if self.ip6 is not None else NOBODY

    def on_link(self, to: Address) -> bool:
        """Whether `to` is in its subnet."""
        if isinstance(to, IPv4Address):
            return to in self.net4
        return self.ip6 is not None and to in self.net6

    def is_router(self, to: Address) -> bool:
        if to.version == 6 and self.ip6 is None:
            return False
        return to in (self.router4, self.router6)


@dataclass(slots=True, eq=False)
class Route:
    """An entry of the forwarding cache; a changed route is another one."""

    slot: int
    vtep: IPv4Address
    mac: bytes
    mtu: int
    identity: int
    used: bool = False


@dataclass(slots=True)
class Settings:
    """Of the host. Times in seconds; `timeouts` by the state of a session."""

    vtep: IPv4Address
    underlay_mtu: int
    session_limit: int
    refuse_midstream: bool
    learn_packets: int
    learn_bytes: int
    learn_pause: float
    learn_interval: float
    timeouts: dict[str, float]
    session_room: int


@dataclass(slots=True)
class World:
    """All of it. Addresses are known by (VNI, address)."""

    settings: Settings
    vnics: dict[int, VNic] = field(default_factory=dict)
    routes: dict[tuple[int, Address], Route] = field(default_factory=dict)
    vteps: set[IPv4Address] = field(default_factory=set)
    gateways: list[IPv4Address | None] = field(default_factory=list)
    """By shard, then rendezvous slot."""

    def local(self, vni: int, address: Address) -> VNic | None:
        """The vNIC here that has the address."""
        for vnic in self.vnics.values():
            if vnic.here and vnic.vni == vni and address in (vnic.ip4, vnic.ip6):
                return vnic
        return None

    def gateway_for(self, vni: int, to: Address) -> IPv4Address | None:
        """The one that relays to the address."""
        return self.gateways[(vni % SHARDS) * SLOTS + rendezvous(vni, to) % SLOTS]


def sixteen(address: Address) -> bytes:
    """As keys have it: IPv4 mapped."""
    if address.version == 4:
        return bytes(10) + b"\xff\xff" + address.packed
    return address.packed


def rendezvous(vni: int, to: Address) -> int:
    """The hash of a destination: multiply and shift, then MurmurHash3's finaliser."""
    golden, word = 0x9E3779B1, 0xFFFFFFFF
    raw = sixteen(to)
    state = vni * golden & word
    for at in range(0, 16, 4):
        state = (state ^ int.from_bytes(raw[at : at + 4], "big")) * golden & word
        state ^= state >> 15
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        state = (state ^ state >> shift) * factor & word
    return state ^ state >> 16
