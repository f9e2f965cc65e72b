"""A frame of a guest on its way out."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from model import link, router
from model.flow import Flow
from model.host import ENCAPSULATION, HOST, Host, Outcome, Verdict, dropped
from model.quoting import read_quote
from model.reading import Drop, Packet, need, number, read_header, read_rest
from model.wire import ARP, ICMPV6, IPV4, IPV6, UDP, ethernet, ethertype_of, tunnel, vxlan_header
from model.world import ROUTER_MAC, Route, VNic

SOURCE_PORT: Final = 0
"""Of outer headers: the kernel's hash of the flow decides, which nobody can know."""
BROADCAST: Final = IPv4Address("255.255.255.255")
MULTICAST: Final = IPv4Address("224.0.0.0")
"""The first such address, and all above are no receiver's."""
ECHO_REQUESTS: Final = ((4, 8), (6, 128))


def from_guest(host: Host, slot: int, frame: bytes, now: float, *, segment: int = 0) -> Outcome:
    """`segment`: what each segment of a GSO frame carries; 0: it is none."""
    vnic = host.world.vnics.get(slot)
    if vnic is None or not vnic.here:
        return host.finish(dropped(Drop("PORT_NOT_READY")), HOST)
    try:
        verdict = _on_its_link(vnic, frame) or Outbound(host, vnic, frame, now, segment).go()
    except Drop as error:
        verdict = dropped(error)
    return host.finish(verdict, slot)


def _on_its_link(vnic: VNic, frame: bytes) -> Verdict | None:
    """What the host answers or takes itself; None: a packet for somebody else."""
    need(frame, 14)
    ethertype = number(frame, 12)
    if frame[6:12] != vnic.mac:
        raise Drop("SPOOFED_MAC")
    if ethertype == ARP:
        return _answered(link.answer_arp(vnic, frame))
    if _asks_a_service(vnic, ethertype, frame[14:]):
        raise Drop("PORT_NOT_READY")  # no lease is prepared here
    packet = read_header(vnic.vni, ethertype, frame[14:])
    source, to = packet.source, packet.to
    if isinstance(source, IPv4Address) or isinstance(to, IPv4Address):
        return None
    return _answered(link.answer_link(vnic, frame)) if link.is_link_scope(source, to) else None


def _answered(answer: bytes | None) -> Verdict:
    return Verdict("drop") if answer is None else Verdict("back", answer)


def _asks_a_service(vnic: VNic, ethertype: int, data: bytes) -> bool:
    """DHCP, DHCPv6 or a router solicitation."""
    if ethertype == IPV4 and len(data) >= 28:
        plain = data[0] & 15 == 5 and not number(data, 6) & 0x3FFF
        asks = data[9] == UDP and number(data, 22) == 67
        return plain and asks and IPv4Address(data[16:20]) in (BROADCAST, vnic.router4)
    if ethertype == IPV6 and len(data) >= 48 and vnic.ip6 is not None:
        to = IPv6Address(data[24:40])
        asks = data[6] == UDP and number(data, 42) == 547
        asks |= data[6] == ICMPV6 and data[40] == link.RS
        return asks and (to.is_multicast or to.is_link_local)
    return False


@dataclass(slots=True)
class Outbound:
    """A packet for somebody else."""

    host: Host
    vnic: VNic
    frame: bytes
    now: float
    segment: int

    def go(self) -> Verdict:
        host, vnic = self.host, self.vnic
        packet = read_header(vnic.vni, number(self.frame, 12), self.frame[14:])
        self._check_addresses(packet)
        try:
            read_rest(packet, host.firsts)
        except Drop as error:
            if error.reason != "BAD_ND":
                raise
            return _answered(link.answer_link(vnic, self.frame))
        flow = self._open(packet)
        if flow.fresh and vnic.is_router(packet.to):
            return self._for_router(packet)
        if flow.fresh and packet.is_error:
            raise Drop("UNRELATED_ICMP")
        hop = flow.next_hop()
        try:
            flow.admit(flow.side, vnic, _identity_of(hop, flow))
        except Drop as error:
            if error.reason == "IDENTITY_UNKNOWN":
                self._miss(packet)
            raise
        try:
            return self._forward(flow, hop)
        finally:
            if flow.slow:
                host.count(vnic.slot, "slow_path")

    def _check_addresses(self, packet: Packet) -> None:
        to = packet.to
        if packet.source != self.vnic.address(to.version):
            raise Drop("SPOOFED_IP")
        if self.frame[0] & 1:
            raise Drop("MULTICAST")
        if isinstance(to, IPv6Address):
            if link.is_reserved(to):
                raise Drop("BAD_ADDRESS")
            return
        net = self.vnic.net4
        if to >= MULTICAST or (net.prefixlen < 31 and to == net.broadcast_address):
            raise Drop("MULTICAST")

    def _open(self, packet: Packet) -> Flow:
        quote = None
        if packet.is_error:
            behind = self.frame[14 + packet.repeated :]
            quote = read_quote(packet.to.version, behind, packet.to)
            if quote.to != self.vnic.address(packet.to.version):
                raise Drop("UNRELATED_ICMP")  # it tells of what was never sent to it
        host = self.host
        return Flow.open(
            host.world, host.table, packet, quote, self.vnic, arrived=False, now=self.now
        )

    def _for_router(self, packet: Packet) -> Verdict:
        whole = not packet.more and not packet.offset
        if whole and not packet.is_error:
            if (packet.to.version, packet.ports.icmp[0]) in ECHO_REQUESTS:
                return Verdict("back", router.ping_reply(self.vnic, self.frame))
            if packet.protocol == UDP:
                return self._refuse(packet, "FOR_ROUTER")
        raise Drop("FOR_ROUTER")

    def _refuse(self, packet: Packet, reason: str, *, mtu: int = 0) -> Verdict:
        """Tells the sender, but for errors and later fragments (RFC 1122, RFC 4443)."""
        if packet.is_error or packet.offset:
            raise Drop(reason)
        sent = self.frame[14 : 14 + packet.length]
        return Verdict("back", router.error(self.vnic, reason, sent, mtu=mtu), reason)

    def _forward(self, flow: Flow, hop: VNic | Route | None) -> Verdict:
        """An admitted packet on its way."""
        packet = flow.packet
        routed = not self.vnic.on_link(packet.to)
        if routed and packet.hops <= 1:
            return self._refuse(packet, "TTL_EXPIRED")
        mtu = self._path_mtu(hop)
        size = packet.repeated + self.segment if self.segment else len(self.frame) - 14
        if size > mtu:
            return self._refuse(packet, "TOO_BIG", mtu=mtu)
        onward = router.one_hop_less(self.frame[14:]) if routed else self.frame[14:]
        if isinstance(hop, VNic):
            flow.admit(1 - flow.side, hop, self.vnic.identity)
            flow.commit(len(self.frame))
            self._sent("local")
            return self.host.deliver(hop, packet.to, onward)
        return self._away(flow, hop, onward)

    def _path_mtu(self, hop: VNic | Route | None) -> int:
        limits = [self.vnic.mtu]
        if not isinstance(hop, VNic):
            limits.append(self.host.world.settings.underlay_mtu - ENCAPSULATION)
        if hop is not None:
            limits.append(hop.mtu)
        return min(limits)

    def _away(self, flow: Flow, route: Route | None, onward: bytes) -> Verdict:
        """To another host, or to a gateway where the route is not known."""
        packet, world, vnic = flow.packet, self.host.world, self.vnic
        vtep = route.vtep if route else world.gateway_for(vnic.vni, packet.to)
        if vtep is None:
            raise Drop("NO_GATEWAY")
        flow.commit(len(self.frame))
        if self.segment:  # a test run's GSO frame has no type, which the kernel refuses
            return dropped(Drop("ENCAP_FAILED"))
        self._sent("direct" if route else "relayed")
        if route:
            route.used = True
        else:
            self._miss(packet)
        receiver = route.mac if route else ROUTER_MAC
        inner = ethernet(receiver, vnic.mac, ethertype_of(packet.to)) + onward
        inside = vxlan_header(vnic.vni, vnic.identity) + inner
        outer = tunnel(world.settings.vtep, vtep, SOURCE_PORT, inside, tos=packet.traffic_class)
        return Verdict("wire", self.frame[:12] + IPV4.to_bytes(2, "big") + outer)

    def _sent(self, how: str) -> None:
        slot = self.vnic.slot
        self.host.count(slot, "tx_packets")
        self.host.count(slot, "tx_bytes", len(self.frame))
        self.host.count(slot, how)

    def _miss(self, packet: Packet) -> None:
        """The FC knows no route."""
        learning, slot = self.host.learning, self.vnic.slot
        if learning.missed(packet.vni, packet.to, slot, len(self.frame), self.now):
            self.host.count(slot, "learn_events")


def _identity_of(hop: VNic | Route | None, flow: Flow) -> int | None:
    """Of the receiver, where the sender's egress rules ask for it."""
    if isinstance(hop, VNic):
        return hop.identity
    return hop.identity if hop is not None and flow.is_initiator else None
