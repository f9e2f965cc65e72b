"""Who talks: vNICs of the host under test, and guests of other hosts."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from model.wire import Address

VNI: Final = 0x64C8
OTHER_VNI: Final = 77
OWN_VTEP: Final = IPv4Address("198.18.0.1")
PEER_VTEP: Final = IPv4Address("198.18.0.2")
OTHER_VTEP: Final = IPv4Address("198.18.0.4")
GATEWAYS: Final = (IPv4Address("198.18.0.3"), IPv4Address("198.18.0.5"))
STRANGER: Final = IPv4Address("198.18.0.99")


@dataclass(frozen=True, slots=True)
class Person:
    """A guest. `slot`: of its vNIC here, 0 if it is elsewhere."""

    name: str
    slot: int
    ip4: IPv4Address
    ip6: IPv6Address
    vni: int = VNI

    @property
    def mac(self) -> bytes:
        return b"\x02\x0a" + self.ip4.packed

    @property
    def net4(self) -> IPv4Network:
        return IPv4Network((self.ip4, 24), strict=False)

    @property
    def net6(self) -> IPv6Network:
        return IPv6Network((self.ip6, 64), strict=False)

    def address(self, version: int) -> Address:
        return self.ip4 if version == 4 else self.ip6

    def router(self, version: int) -> Address:
        return self.net4[1] if version == 4 else self.net6[1]


def _person(name: str, slot: int, ip4: str, ip6: str, vni: int = VNI) -> Person:
    return Person(name, slot, IPv4Address(ip4), IPv6Address(ip6), vni)


ANN: Final = _person("ann", 1, "10.0.0.5", "fd00::5")
BEN: Final = _person("ben", 2, "10.0.0.6", "fd00::6")
CID: Final = _person("cid", 3, "10.0.1.7", "fd01::7")
DAN: Final = _person("dan", 4, "10.0.0.5", "fd00::5", OTHER_VNI)
"""Of another VPC, with an address of the first."""
EVE: Final = _person("eve", 0, "10.0.0.9", "fd00::9")
FAY: Final = _person("fay", 0, "10.0.1.9", "fd01::9")
GUS: Final = _person("gus", 0, "10.0.0.4", "fd00::4")
"""With addresses below those here: it is the other side of its sessions."""

HERE: Final = (ANN, BEN, CID, DAN)
AWAY: Final = (EVE, FAY, GUS)
EVERYBODY: Final = (*HERE, *AWAY)
_HAL: Final = _person("hal", 0, "10.0.0.8", "fd00::8")
_IDA: Final = _person("ida", 0, "10.0.0.8", "fd00::8", OTHER_VNI)
THIRD: Final = {VNI: _HAL, OTHER_VNI: _IDA}
"""Of each VPC a guest elsewhere that no talk is with."""
