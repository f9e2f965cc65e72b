"""The ports of a document, each checked on its own: one that cannot run fails alone."""

from collections.abc import Iterable
from ipaddress import IPv4Address
from uuid import UUID

from achelous_shared.messages import Port
from achelous_shared.names import VNI_MAX, VNI_MIN, port_ifname
from achelous_shared.routes import ip_of
from achelous_vswitch.classifier import Rules
from achelous_vswitch.lease import lease_of
from achelous_vswitch.plan import Desired, DesiredPort, PortConfig
from achelous_vswitch.rule_book import RuleBook, check


class CheckedPorts:
    """Ports by device, in the order in which they came: of two that exclude each other the first.

    What a port came to is taken from ``before``, the same object, if all of it is as it was there.
    """

    def __init__(
        self, rules: RuleBook, max_ports: int, before: "CheckedPorts | None" = None
    ) -> None:
        self.rules = rules
        self.ports: dict[str, DesiredPort] = {}
        self.sources: dict[str, Port] = {}
        self.taken: dict[tuple[int, bytes], UUID] = {}
        """Addresses by VNI."""
        self.failed: dict[UUID, str] = {}
        self._max = max_ports
        self._known = before.ports if before else {}
        self._known_sources = before.sources if before else {}

    def without(
        self, vnics: Iterable[UUID], rules: RuleBook, before: "CheckedPorts"
    ) -> "CheckedPorts":
        """A copy that lacks these; of ports none of which failed."""
        copy = CheckedPorts(rules, self._max, before)
        copy.ports, copy.sources = dict(self.ports), dict(self.sources)
        copy.taken = dict(self.taken)
        for vnic_id in vnics:
            device = port_ifname(vnic_id)
            if device in copy.ports and copy.ports[device].vnic_id == vnic_id:
                left = copy.ports.pop(device)
                del copy.sources[device]
                for ip in left.config.addresses:
                    del copy.taken[left.config.vni, ip]
        return copy

    def add(self, port: Port) -> None:
        """One more; why it cannot run is in ``failed``."""
        try:
            want = self._want(port)
            self._check_room(want)
        except ValueError as error:
            self.failed[port.vnic_id] = str(error)
        else:
            self.taken.update({(port.vni, ip): port.vnic_id for ip in want.config.addresses})
            self.ports[want.device] = want
            self.sources[want.device] = port

    def desired(self, revision: int, preprogrammed: Iterable[int]) -> Desired:
        """What the host shall run."""
        ahead = frozenset(preprogrammed)
        if ahead:
            ahead &= {want.config.vni for want in self.ports.values()}
        return Desired(revision, self.ports, self.failed, ahead)

    def _want(self, port: Port) -> DesiredPort:
        rules = self.rules.of(port.vni, frozenset(port.security_groups))
        device = port_ifname(port.vnic_id)
        if self._known_sources.get(device) == port:
            known = self._known[device]
            if (known.config.rules_in, known.config.rules_out) == rules:
                return known
        return DesiredPort(port.vnic_id, device, _config(port, *rules))

    def _check_room(self, want: DesiredPort) -> None:
        vni = want.config.vni
        for ip in want.config.addresses:
            if (vni, ip) in self.taken:
                raise ValueError(
                    f"address {ip_of(ip)} of VNI {vni} is vNIC {self.taken[vni, ip]}'s"
                )
        if want.device in self.ports:
            raise ValueError(f"device {want.device} is vNIC {self.ports[want.device].vnic_id}'s")
        if len(self.ports) >= self._max:
            raise ValueError(f"the host runs at most {self._max} vNICs")


def _config(port: Port, rules_in: Rules, rules_out: Rules) -> PortConfig:
    check("VNI", port.vni, VNI_MIN, VNI_MAX)
    check("address", len(port.ip), 16, 16, "bytes")
    check("router's address", len(port.router), 16, 16, "bytes")
    check("MAC", len(port.mac), 6, 6, "bytes")
    check("subnet's prefix length", port.prefix_len, 96, 128)
    check("MTU", port.mtu, 68, 0xFFFF)
    check("identity", port.identity, 0, 0xFFFF)
    _check_ipv6(port)
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
