"""What to change so that a host runs its document: pure functions of desired and observed."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from achelous_vswitch.classifier import Rules
from achelous_vswitch.lease import NO_LEASE, Lease


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


def plan(desired: Desired, bound: Mapping[str, BoundPort], links: Mapping[str, Link]) -> Plan:
    """The difference between what shall run and what runs, given the devices that are there.

    ``bound`` and ``links`` are by device name. A device that came back as another one (a new
    ifindex), and a vNIC with another key, is unbound and bound again.
    """
    unbind = [device for device in bound if device not in desired.ports]
    update, bind, waiting = [], [], []
    for device, want in desired.ports.items():
        link, port = links.get(device), bound.get(device)
        if port is not None and port.config is want.config and _same_link(port.link, link):
            continue  # most ports, most of the time
        if port is not None and not _same_vnic(port, want, link):
            unbind.append(device)
            port = None
        if link is None:
            waiting.append(want.vnic_id)
        elif port is None:
            bind.append((want, link))
        elif port.config != want.config:
            update.append(want)
    return Plan(tuple(unbind), tuple(update), tuple(bind), tuple(waiting))


def _same_vnic(port: BoundPort, want: DesiredPort, link: Link | None) -> bool:
    return _same_link(port.link, link) and port.config.key == want.config.key


def _same_link(ours: Link, now: Link | None) -> bool:
    return now is ours or (
        now is not None and ours.ifindex == now.ifindex and ours.peer == now.peer
    )
