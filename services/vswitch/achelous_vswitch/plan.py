"""What to change so that a host runs its document: pure functions of desired and observed.

The rules of a vNIC are those of all its security groups, taken literally: what no rule allows is
denied. A vNIC in no group at all may send anything and receive only answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from uuid import UUID

from achelous_shared.messages import HostDocument, Port
from achelous_shared.names import VNI_MAX, VNI_MIN, port_ifname
from achelous_shared.routes import ip_of
from achelous_vswitch.classifier import MAX_RULES, Rules
from achelous_vswitch.lease import NO_LEASE, Lease, lease_of
from achelous_vswitch.rule_book import RuleBook, check


@dataclass(frozen=True, slots=True)
class Link:
    """A network device of the host. ``peer``: a veth whose other end is in another namespace."""

    ifindex: int
    name: str
    mtu: int
    peer: bool


@dataclass(frozen=True, slots=True)
class PortConfig:
    """What the packet path knows of a vNIC. Addresses as bytes, 16 and 6; no ``ip6``: none."""

    vni: int
    ip: bytes
    mac: bytes
    router: bytes
    prefix_len: int
    mtu: int
    rules_in: Rules
    rules_out: Rules
    identity: int = 0
    """Number of its set of security groups; 0: none that matters."""
    ip6: bytes = b""
    router6: bytes = b""
    prefix_len6: int = 0
    lease: Lease = NO_LEASE

    @property
    def key(self) -> tuple[int, bytes, bytes, bytes]:
        """With another one of these it is another vNIC: sessions do not survive the change."""
        return self.vni, self.ip, self.ip6, self.mac

    @property
    def addresses(self) -> tuple[bytes, ...]:
        """Of both families; each is an endpoint of its own."""
        return (self.ip, self.ip6) if self.ip6 else (self.ip,)


@dataclass(frozen=True, slots=True)
class DesiredPort:
    """A vNIC that the document asks for, and the name of the device that will carry it."""

    vnic_id: UUID
    device: str
    config: PortConfig


@dataclass(frozen=True, slots=True)
class BoundPort:
    """A port that the packet path runs on a device that is there."""

    slot: int
    link: Link
    config: PortConfig


@dataclass(frozen=True, slots=True)
class Desired:
    """A document, checked. ``ports`` by device; ``failed``: why a vNIC of it cannot run."""

    revision: int
    ports: Mapping[str, DesiredPort]
    failed: Mapping[UUID, str]
    preprogrammed: frozenset[int] = frozenset()
    """VNIs of ports whose routes are all to be held."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes, to be made in the order of the fields. ``unbind`` names devices."""

    unbind: tuple[str, ...]
    update: tuple[DesiredPort, ...]
    bind: tuple[tuple[DesiredPort, Link], ...]
    waiting: tuple[UUID, ...]
    """vNICs whose device is not there."""


def resolve(document: HostDocument, *, max_ports: int, max_rules: int = MAX_RULES) -> Desired:
    """Check every port of the document on its own: one that cannot run fails alone."""
    rules = RuleBook(document.security_groups, document.identities, max_rules)
    ports: dict[str, DesiredPort] = {}
    failed: dict[UUID, str] = {}
    taken: dict[tuple[int, bytes], UUID] = {}
    for port in document.ports:
        try:
            want = DesiredPort(port.vnic_id, port_ifname(port.vnic_id), _config(port, rules))
            _check_room(want, ports, taken, max_ports)
        except ValueError as error:
            failed[port.vnic_id] = str(error)
        else:
            taken.update({(port.vni, ip): port.vnic_id for ip in want.config.addresses})
            ports[want.device] = want
    vnis = frozenset(want.config.vni for want in ports.values())
    return Desired(document.revision, ports, failed, vnis.intersection(document.preprogrammed))


def plan(desired: Desired, bound: Mapping[str, BoundPort], links: Mapping[str, Link]) -> Plan:
    """The difference between what shall run and what runs, given the devices that are there.

    ``bound`` and ``links`` are by device name. A device that came back as another one (a new
    ifindex), and a vNIC with another key, is unbound and bound again.
    """
    unbind, update, bind, waiting = [], [], [], []
    for device, port in bound.items():
        want = desired.ports.get(device)
        if want is None or not _same_vnic(port, want, links.get(device)):
            unbind.append(device)
    for device, want in desired.ports.items():
        link, port_or_none = links.get(device), bound.get(device)
        if link is None:
            waiting.append(want.vnic_id)
        elif port_or_none is None or not _same_vnic(port_or_none, want, link):
            bind.append((want, link))
        elif port_or_none.config != want.config:
            update.append(want)
    return Plan(tuple(unbind), tuple(update), tuple(bind), tuple(waiting))


def _same_vnic(port: BoundPort, want: DesiredPort, link: Link | None) -> bool:
    return (
        link is not None
        and (port.link.ifindex, port.link.peer) == (link.ifindex, link.peer)
        and port.config.key == want.config.key
    )


def _check_room(
    want: DesiredPort,
    ports: Mapping[str, DesiredPort],
    taken: Mapping[tuple[int, bytes], UUID],
    max_ports: int,
) -> None:
    vni = want.config.vni
    for ip in want.config.addresses:
        if (vni, ip) in taken:
            raise ValueError(f"address {ip_of(ip)} of VNI {vni} is vNIC {taken[vni, ip]}'s")
    if want.device in ports:
        raise ValueError(f"device {want.device} is vNIC {ports[want.device].vnic_id}'s")
    if len(ports) >= max_ports:
        raise ValueError(f"the host runs at most {max_ports} vNICs")


def _config(port: Port, rules: RuleBook) -> PortConfig:
    check("VNI", port.vni, VNI_MIN, VNI_MAX)
    check("address", len(port.ip), 16, 16, "bytes")
    check("router's address", len(port.router), 16, 16, "bytes")
    check("MAC", len(port.mac), 6, 6, "bytes")
    check("subnet's prefix length", port.prefix_len, 96, 128)
    check("MTU", port.mtu, 68, 0xFFFF)
    check("identity", port.identity, 0, 0xFFFF)
    _check_ipv6(port)
    rules_in, rules_out = rules.of(port.vni, frozenset(port.security_groups))
    return PortConfig(
        vni=port.vni,
        ip=port.ip,
        mac=port.mac,
        router=port.router,
        prefix_len=port.prefix_len,
        mtu=port.mtu,
        rules_in=rules_in,
        rules_out=rules_out,
        identity=port.identity,
        ip6=port.ip6,
        router6=port.router6,
        prefix_len6=port.prefix_len6,
        lease=lease_of(port),
    )


def _check_ipv6(port: Port) -> None:
    if not port.ip6:
        check("IPv6 router's address of a vNIC without IPv6", len(port.router6), 0, 0, "bytes")
        check("IPv6 prefix length of a vNIC without IPv6", port.prefix_len6, 0, 0)
        return
    check("IPv6 address", len(port.ip6), 16, 16, "bytes")
    check("IPv6 router's address", len(port.router6), 16, 16, "bytes")
    check("IPv6 subnet's prefix length", port.prefix_len6, 1, 128)
    if isinstance(ip_of(port.ip6), IPv4Address) or port.ip6 == bytes(16):
        raise ValueError(f"IPv6 address is {ip_of(port.ip6)}, should be a unicast one of IPv6")
