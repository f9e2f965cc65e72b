"""A frame of the underlay: VXLAN (RFC 7348) for a guest of this host, or the kernel's matter."""

from ipaddress import IPv4Address, IPv6Address

from model import link
from model.flow import Flow
from model.host import ENCAPSULATION, HOST, Host, Outcome, Verdict, dropped
from model.quoting import read_quote
from model.reading import Drop, Packet, need, number, read_header, read_rest
from model.wire import IPV4, UDP, VXLAN_PORT, corrected
from model.world import VNic

CONGESTED = 3
"""Of the ECN field (RFC 3168)."""


def from_underlay(host: Host, frame: bytes, now: float) -> Outcome:
    datagram = _for_us(host, frame)
    if datagram is None:
        return host.finish(Verdict("next", frame), HOST)
    charged = [HOST]
    try:
        verdict = _arrive(host, frame, datagram, now, charged)
    except Drop as error:
        verdict = dropped(error)
    return host.finish(verdict, charged[-1])


def _for_us(host: Host, frame: bytes) -> bytes | None:
    """The outer packet of a frame to the host's VXLAN port, if it is one."""
    data = frame[14:]
    if len(frame) < 34 or number(frame, 12) != IPV4 or data[0] >> 4 != 4:
        return None
    header = (data[0] & 15) * 4
    ours = data[9] == UDP and IPv4Address(data[16:20]) == host.world.settings.vtep
    if header < 20 or len(data) < header + 8 or not ours or number(data, 6) & 0x1FFF:
        return None
    return data if number(data, header + 2) == VXLAN_PORT else None


def _payload(data: bytes) -> bytes:
    """What the datagram carries."""
    if data[0] & 15 != 5:
        raise Drop("BAD_IP_HEADER")
    if number(data, 6) & 0x2000:
        raise Drop("FRAGMENT")
    total, length = number(data, 2), number(data, 24)
    if not 28 <= 20 + length <= total <= len(data) or length < 8:
        raise Drop("TRUNCATED")
    return data[28 : 20 + length]


def _arrive(host: Host, frame: bytes, outer: bytes, now: float, charged: list[int]) -> Verdict:
    """`charged`: gets the slot of the vNIC that a drop is counted for, once it is known."""
    world, data = host.world, _payload(outer)
    if IPv4Address(outer[12:16]) not in world.vteps:
        raise Drop("UNKNOWN_VTEP")
    need(data, 8)
    if not data[0] & 0x08:
        raise Drop("BAD_VXLAN")
    identity = number(data, 2) if data[0] & 0x80 else 0
    vni = number(data, 4, 3)
    if all(vnic.vni != vni for vnic in world.vnics.values()):
        raise Drop("UNKNOWN_VNI")
    inner = data[8:]
    need(inner, 14)
    packet = read_header(vni, number(inner, 12), inner[14:])
    vnic = _receiver(host, packet)
    charged.append(vnic.slot)
    if inner[:6] != vnic.mac:
        raise Drop("FOREIGN_MAC")
    if outer[1] & 3 == CONGESTED and not packet.traffic_class & 3:
        raise Drop("LOST_CONGESTION")
    if world.local(vni, packet.source) is not None:
        raise Drop("SPOOFED_IP")
    read_rest(packet, host.firsts)
    padded = frame[14 + ENCAPSULATION :]
    _admit(host, packet, vnic, identity, padded, now)
    return host.deliver(vnic, packet.to, mark(packet, padded, outer[1]))


def _receiver(host: Host, packet: Packet) -> VNic:
    source, to = packet.source, packet.to
    if isinstance(source, IPv6Address) and isinstance(to, IPv6Address):
        astray = link.is_link_scope(source, to) or link.is_reserved(to)
        if astray:
            raise Drop("BAD_ADDRESS")
    vnic = host.world.local(packet.vni, to)
    if vnic is None:
        raise Drop("UNKNOWN_ENDPOINT")
    return vnic


def _admit(
    host: Host, packet: Packet, vnic: VNic, identity: int, padded: bytes, now: float
) -> None:
    """The receiver's rules allow it, and the session has seen it."""
    quote = None
    if packet.is_error:
        quote = read_quote(packet.to.version, padded[packet.repeated :], packet.to)
    flow = Flow.open(host.world, host.table, packet, quote, vnic, arrived=True, now=now)
    if flow.fresh and packet.is_error:
        raise Drop("UNRELATED_ICMP")
    try:
        flow.admit(1 - flow.side, vnic, identity if flow.is_initiator else None)
        flow.commit(14 + len(padded))
    finally:
        if flow.slow:
            host.count(vnic.slot, "slow_path")


def mark(packet: Packet, data: bytes, outer_tos: int) -> bytes:
    """Congestion on the underlay is told to a guest that understands it (RFC 6040)."""
    if outer_tos & 3 != CONGESTED or packet.traffic_class & 3 in (0, CONGESTED):
        return data
    if packet.to.version == 6:
        return data[:1] + bytes([data[1] | CONGESTED << 4]) + data[2:]
    after = bytes([data[0], data[1] | CONGESTED])
    check = corrected(number(data, 10), data[:2], after)
    return after + data[2:10] + check.to_bytes(2, "big") + data[12:]
