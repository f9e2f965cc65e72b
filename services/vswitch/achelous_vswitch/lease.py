"""What a host tells a guest by DHCP and router advertisements, as bytes of these messages.

The packet path puts them in their place (`ach_lease` in `ach_layout.h`); nothing of it is made for
each packet.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any, Final

import numpy as np

from achelous_shared.messages import Port
from achelous_shared.names import ROUTER_MAC
from achelous_shared.routes import ip_of

ROUTER_LIFETIME_S: Final = 0xFFFF
"""The longest that there is (RFC 8319): guests are told again by the agent and when they ask, and
keep their router for so long while no agent runs."""

_MAPPED: Final = 96
_HOP_LIMIT: Final = 64
_MANAGED: Final = 0x80
_OTHER: Final = 0x40
_ON_LINK: Final = 0x80
_VALID_S: Final = 2_592_000
_PREFERRED_S: Final = 604_800
_ADVERTISEMENT: Final = struct.Struct("!BBHBBHII")
_PREFIX: Final = struct.Struct("!BBBBIII16s")


@dataclass(frozen=True, slots=True)
class Lease:
    """The prepared messages of a vNIC; ``advert`` is empty without IPv6."""

    lease_s: int
    dhcp4: bytes
    dhcp6: bytes
    advert: bytes


NO_LEASE: Final = Lease(0, b"", b"", b"")


def lease_of(port: Port) -> Lease:
    """What its guest is told; raises ValueError where something does not fit the messages."""
    if len(port.dns) > 4 or any(len(server) != 16 for server in port.dns):
        raise ValueError(f"resolvers are {port.dns}, should be at most 4 addresses of 16 bytes")
    if not 60 <= port.lease_s <= 604_800:
        raise ValueError(f"lease is {port.lease_s} s, should be 60..604800")
    hostname = port.hostname.encode("ascii", "replace")
    if len(hostname) > 63:
        raise ValueError(f"host name has {len(hostname)} bytes, should be at most 63")
    servers = [ip_of(server) for server in port.dns]
    dns4 = [server.packed for server in servers if isinstance(server, IPv4Address)]
    dns6 = [server.packed for server in servers if isinstance(server, IPv6Address)]
    return Lease(
        port.lease_s,
        _dhcp4(port, dns4, hostname),
        _dhcp6(dns6) if port.ip6 else b"",
        _advertisement(port, dns6) if port.ip6 else b"",
    )


def read(entry: Any) -> Lease:
    """What stands in a slot of the packet path's ``leases``."""
    if not entry["ready"]:
        return NO_LEASE
    return Lease(
        int(entry["lease_s"]),
        *(
            entry[name][: int(entry[length])].tobytes()
            for name, length in (
                ("dhcp4", "dhcp4_len"), ("dhcp6", "dhcp6_len"), ("advert", "advert_len"),
            )
        ),
    )  # fmt: skip


def write(entry: Any, lease: Lease) -> None:
    """Fill a slot; the packet path answers nothing while it is not ready."""
    entry["ready"] = 0
    entry["lease_s"] = lease.lease_s
    for name in ("dhcp4", "dhcp6", "advert"):
        content: bytes = getattr(lease, name)
        entry[name][: len(content)] = np.frombuffer(content, np.uint8)
        entry[f"{name}_len"] = len(content)
    entry["ready"] = int(lease != NO_LEASE)


# ---- DHCP (RFC 2132) ---------------------------------------------------------------------------


def _dhcp4(port: Port, dns: list[bytes], hostname: bytes) -> bytes:
    """Server identifier and times first, as `dhcp4.h` expects, then all else."""
    router, ip = port.router[12:], port.ip[12:]
    network = IPv4Network((ip, port.prefix_len - _MAPPED), strict=False)
    options = [
        (54, router),
        *((code, struct.pack("!I", s)) for code, s in _times(port.lease_s)),
        (1, network.netmask.packed),
        (26, struct.pack("!H", port.mtu)),
    ]
    if IPv4Address(router) in network:
        options += [(28, network.broadcast_address.packed), (3, router)]
    else:  # on the link all the same: a route to it, then the default one by it (RFC 3442)
        options += [(121, b"\x20" + router + bytes(4) + b"\0" + router), (3, router)]
    options += [(6, b"".join(dns))] if dns else []
    options += [(12, hostname)] if hostname else []
    return b"".join(bytes([code, len(value)]) + value for code, value in options)


def _times(lease_s: int) -> Iterable[tuple[int, int]]:
    """The lease, and when to renew and to rebind it (RFC 2131, 4.4.5)."""
    return (51, lease_s), (58, lease_s // 2), (59, lease_s // 8 * 7)


# ---- DHCPv6 (RFC 8415) and router advertisements (RFC 4861, RFC 8106) ----------------------------


def _dhcp6(dns: list[bytes]) -> bytes:
    duid = struct.pack("!HH", 3, 1) + ROUTER_MAC
    servers = b"".join(dns)
    named = struct.pack("!HH", 23, len(servers)) + servers if dns else b""
    return struct.pack("!HH", 2, len(duid)) + duid + named


def _advertisement(port: Port, dns: list[bytes]) -> bytes:
    """Addresses come by DHCPv6 alone; the prefix says what is on the link."""
    prefix = int.from_bytes(port.ip6) >> (128 - port.prefix_len6) << (128 - port.prefix_len6)
    parts = [
        _ADVERTISEMENT.pack(134, 0, 0, _HOP_LIMIT, _MANAGED | _OTHER, ROUTER_LIFETIME_S, 0, 0),
        b"\x01\x01" + ROUTER_MAC,
        struct.pack("!BBHI", 5, 1, 0, port.mtu),
        _PREFIX.pack(
            3, 4, port.prefix_len6, _ON_LINK, _VALID_S, _PREFERRED_S, 0, prefix.to_bytes(16)
        ),
    ]
    if dns:
        parts.append(struct.pack("!BBHI", 25, 1 + 2 * len(dns), 0, ROUTER_LIFETIME_S))
    return b"".join((*parts, *dns))
