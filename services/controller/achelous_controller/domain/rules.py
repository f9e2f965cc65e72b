"""Rules of security groups: what they are in words, and in the numbers that are stored."""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from achelous_controller.domain.networks import Network

MAX_RULES: Final = 50
"""Of one security group."""

MAX_GROUPS: Final = 5
"""Of one vNIC."""

DEFAULT_GROUP: Final = "default"
"""Made with its VPC and gone with it; a vNIC that names no group is in this one."""

PORT_MAX: Final = 65535
EVERYWHERE: Final = IPv4Network("0.0.0.0/0")
EVERYWHERE6: Final = IPv6Network("::/0")


class Protocol(IntEnum):
    """Protocols with a name of their own."""

    ANY = 0
    ICMP = 1
    TCP = 6
    UDP = 17


_WITH_PORTS: Final = (Protocol.TCP, Protocol.UDP)


@dataclass(frozen=True, slots=True)
class Rule:
    """An allow rule. Ports are the destination's, 0 to 65535 where the protocol has none."""

    egress: bool
    protocol: int
    port_min: int
    port_max: int
    remote: Network


FIRST_RULES: Final = tuple(
    Rule(egress=True, protocol=Protocol.ANY, port_min=0, port_max=PORT_MAX, remote=remote)
    for remote in (EVERYWHERE, EVERYWHERE6)
)
"""The rules of a new group: they let everything out, and can be deleted."""


def has_ports(protocol: int) -> bool:
    return protocol in _WITH_PORTS


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
