"""Rules of security groups: what they are in words, and in the numbers that are stored."""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Final
from uuid import UUID

from achelous_controller.domain.networks import Network

MAX_RULES: Final = 500
"""Of one direction: of a security group, and of a vNIC in all its groups together."""

MAX_GROUPS: Final = 5
"""Of one vNIC."""

DEFAULT_GROUP: Final = "default"
"""Made with its VPC and gone with it; a vNIC that names no group is in this one."""

PORT_MAX: Final = 65535
PRIORITY_MAX: Final = 65535
DEFAULT_PRIORITY: Final = 1000
EVERYWHERE: Final = IPv4Network("0.0.0.0/0")
EVERYWHERE6: Final = IPv6Network("::/0")


class Protocol(IntEnum):
    """Protocols with a name of their own."""

    ANY = 0
    ICMP = 1
    TCP = 6
    UDP = 17
    ICMP6 = 58


_WITH_PORTS: Final = (Protocol.TCP, Protocol.UDP)
_ICMP: Final = (Protocol.ICMP, Protocol.ICMP6)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule. Ports are the destination's, 0 to 65535 where the protocol has none; of ICMP they are
    type << 8 | code. Of those that match, the lowest ``priority`` decides, a denial of equal ones.
    """

    egress: bool
    protocol: int
    port_min: int
    port_max: int
    remote: Network | None
    """None: the members of ``remote_group``."""
    remote_group: UUID | None = None
    allow: bool = True
    priority: int = DEFAULT_PRIORITY


FIRST_RULES: Final = tuple(
    Rule(egress=True, protocol=Protocol.ANY, port_min=0, port_max=PORT_MAX, remote=remote)
    for remote in (EVERYWHERE, EVERYWHERE6)
)
"""The rules of a new group: they let everything out, and can be deleted."""


def has_ports(protocol: int) -> bool:
    return protocol in _WITH_PORTS


def is_icmp(protocol: int) -> bool:
    return protocol in _ICMP


def protocol_name(protocol: int) -> str | int:
    """How a protocol is shown: its name if it has one, else its number."""
    return Protocol(protocol).name.lower() if protocol in set(Protocol) else protocol


def protocol_number(name: str | int) -> int:
    """The inverse of `protocol_name`."""
    return Protocol[name.upper()].value if isinstance(name, str) else name


def ports(protocol: int, port_min: int | None, port_max: int | None) -> tuple[int, int]:
    """The port range of a rule, when the request gave both, one (that port) or none (all ports).

    Raises ValueError.
    """
    if not has_ports(protocol):
        if port_min is not None or port_max is not None:
            raise ValueError(
                f"protocol {protocol_name(protocol)} has no ports: leave port_min and port_max out,"
                " or take tcp or udp"
            )
        return 0, PORT_MAX
    if port_min is None:
        if port_max is not None:
            raise ValueError(f"port_max {port_max} needs a port_min")
        return 0, PORT_MAX
    if port_max is None:
        return port_min, port_min
    if port_min > port_max:
        raise ValueError(f"port_min {port_min} is above port_max {port_max}")
    return port_min, port_max


def icmp(protocol: int, icmp_type: int | None, code: int | None) -> tuple[int, int]:
    """The range of type << 8 | code, when the request gave both, a type (all its codes) or none.

    Raises ValueError.
    """
    if icmp_type is None:
        if code is not None:
            raise ValueError(f"icmp_code {code} needs an icmp_type")
        return 0, PORT_MAX
    if not is_icmp(protocol):
        raise ValueError(
            f"protocol {protocol_name(protocol)} has no ICMP types: leave icmp_type out, or take"
            " icmp or icmp6"
        )
    first = icmp_type << 8
    return (first, first | 0xFF) if code is None else (first | code, first | code)


def icmp_of(port_min: int, port_max: int) -> tuple[int | None, int | None]:
    """Type and code of a range; the inverse of `icmp`."""
    if (port_min, port_max) == (0, PORT_MAX):
        return None, None
    return port_min >> 8, port_min & 0xFF if port_min == port_max else None
