"""A gateway relays what hosts send it: new outer addresses, the receiver's MAC, one hop less."""

from dataclasses import dataclass

import pytest
from packets.datapath import GATEWAY_VTEP, OWN_VTEP, PEER_VTEP, VNI
from packets.frames import (
    ETHERNET,
    OUTER,
    ROUTER,
    UNDERLAY_MACS,
    frame,
    guest,
    ping,
    tcp,
    udp,
    vxlan,
)
from packets.gateway_path import OTHER_GATEWAY, GatewayPath
from packets.outcome import Verdict
from scapy.layers.inet import IP
from scapy.layers.l2 import ARP, Ether

pytestmark = pytest.mark.kernel

SENDER = guest("10.0.0.5")
RECEIVER = guest("10.0.0.9")
INNER = frame(SENDER, RECEIVER.ip, udp())
HERE = (OWN_VTEP, GATEWAY_VTEP)
ONWARD = (GATEWAY_VTEP, PEER_VTEP)
ARRIVING = vxlan(INNER, vteps=HERE, vni=VNI, dmac=ROUTER)
OUTER_IP = ETHERNET
OUTER_UDP = ETHERNET + 20
VXLAN_HEADER = ETHERNET + 28


def test_the_senders_identity_stays_in_the_packet(gateway: GatewayPath) -> None:
    gateway.route(RECEIVER.ip)
    outcome = gateway.receive(vxlan(INNER, vteps=HERE, vni=VNI, dmac=ROUTER, identity=4711))
    assert outcome.frame == vxlan(
        INNER, vteps=ONWARD, vni=VNI, dmac=RECEIVER.mac, ttl=63, identity=4711
    )


def changed(at: int, value: bytes) -> bytes:
    return ARRIVING[:at] + value + ARRIVING[at + len(value) :]


@pytest.mark.parametrize(
    "inner",
    [
        INNER,
        frame(SENDER, RECEIVER.ip, tcp(payload=b"data")),
        frame(SENDER, RECEIVER.ip, ping()),
        frame(SENDER, RECEIVER.ip, udp(), options=b"\x01" * 40),
        frame(SENDER, RECEIVER.ip, udp(), frag=100),
    ],
    ids=["UDP", "TCP", "ping", "options", "a later fragment"],
)
@pytest.mark.parametrize("ttl", [64, 2])
def test_a_packet_of_a_host_goes_to_the_receivers_host(
    gateway: GatewayPath, inner: bytes, ttl: int
) -> None:
    gateway.route(RECEIVER.ip)
    outcome = gateway.receive(vxlan(inner, vteps=HERE, vni=VNI, dmac=ROUTER, ttl=ttl, tos=0xB8))
    assert outcome.verdict is Verdict.REDIRECT
    assert outcome.frame == vxlan(
        inner, vteps=ONWARD, vni=VNI, dmac=RECEIVER.mac, ttl=ttl - 1, tos=0xB8
    )
    length = ETHERNET + OUTER + len(inner) - ETHERNET
    assert outcome.counted == {0: {"relayed_packets": 1, "relayed_bytes": length}}


def test_ipv6_is_relayed_by_its_destination(gateway: GatewayPath) -> None:
    gateway.route("fd00::9")
    inner = frame(guest("fd00::5"), "fd00::9", udp())
    outcome = gateway.receive(vxlan(inner, vteps=HERE, vni=VNI, dmac=ROUTER))
    receiver = guest("fd00::9")
    assert outcome.frame == vxlan(inner, vteps=ONWARD, vni=VNI, dmac=receiver.mac, ttl=63)


def test_an_ipv6_packet_does_not_find_the_route_of_an_ipv4_address(gateway: GatewayPath) -> None:
    gateway.route(RECEIVER.ip)
    inner = frame(guest("fd00::5"), f"::ffff:{RECEIVER.ip}", udp())
    outcome = gateway.receive(vxlan(inner, vteps=HERE, vni=VNI, dmac=ROUTER))
    assert outcome.counted == {0: {"BAD_ADDRESS": 1}}


def test_an_outer_checksum_that_no_longer_fits_is_removed(gateway: GatewayPath) -> None:
    gateway.route(RECEIVER.ip)
    outcome = gateway.receive(changed(OUTER_UDP + 6, b"\x12\x34"))
    assert outcome.frame == vxlan(INNER, vteps=ONWARD, vni=VNI, dmac=RECEIVER.mac, ttl=63)


def test_the_route_is_of_the_vpc(gateway: GatewayPath) -> None:
    gateway.route(RECEIVER.ip, vni=VNI)
    gateway.route(RECEIVER.ip, "198.18.0.7", vni=VNI + 1)
    outcome = gateway.receive(vxlan(INNER, vteps=HERE, vni=VNI + 1, dmac=ROUTER))
    onward = (GATEWAY_VTEP, "198.18.0.7")
    assert outcome.frame == vxlan(INNER, vteps=onward, vni=VNI + 1, dmac=RECEIVER.mac, ttl=63)


@dataclass(frozen=True, slots=True)
class Case:
    """A frame of the underlay and why it is dropped."""

    frame: bytes
    reason: str


def sent_by(vtep: str) -> bytes:
    return vxlan(INNER, vteps=(vtep, GATEWAY_VTEP), vni=VNI, dmac=ROUTER)


REFUSED = {
    "from another gateway": Case(sent_by(OTHER_GATEWAY), "GATEWAY_LOOP"),
    "from an unknown VTEP": Case(sent_by("198.18.0.99"), "UNKNOWN_VTEP"),
    "TTL 1": Case(vxlan(INNER, vteps=HERE, vni=VNI, dmac=ROUTER, ttl=1), "TTL_EXPIRED"),
    "TTL 0": Case(vxlan(INNER, vteps=HERE, vni=VNI, dmac=ROUTER, ttl=0), "TTL_EXPIRED"),
    "no route": Case(
        vxlan(frame(SENDER, "10.0.0.77", udp()), vteps=HERE, vni=VNI, dmac=ROUTER), "NO_ROUTE"
    ),
    "no route in this VPC": Case(vxlan(INNER, vteps=HERE, vni=VNI + 1, dmac=ROUTER), "NO_ROUTE"),
    "no I flag": Case(changed(VXLAN_HEADER, b"\0"), "BAD_VXLAN"),
    "inner ARP": Case(
        vxlan(bytes(Ether() / ARP()), vteps=HERE, vni=VNI, dmac=ROUTER), "UNSUPPORTED_ETHERTYPE"
    ),
    "inner IHL 4": Case(changed(ETHERNET + OUTER, b"\x44"), "BAD_IP_HEADER"),
    "an inner length beyond the frame": Case(
        changed(ETHERNET + OUTER + 2, b"\x01\x00"), "TRUNCATED"
    ),
    "a UDP length beyond the datagram": Case(changed(OUTER_UDP + 4, b"\x01\x00"), "TRUNCATED"),
    "a first fragment of the underlay": Case(changed(OUTER_IP + 6, b"\x20\x00"), "FRAGMENT"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_frame_that_is_not_relayed(gateway: GatewayPath, case: Case) -> None:
    gateway.route(RECEIVER.ip)
    outcome = gateway.receive(case.frame)
    assert outcome.verdict is Verdict.DROP
    assert outcome.counted == {0: {case.reason: 1}}


NOT_OURS = {
    "VXLAN for another VTEP": vxlan(INNER, vteps=(OWN_VTEP, PEER_VTEP), vni=VNI, dmac=ROUTER),
    "UDP to another port": bytes(
        Ether(dst=UNDERLAY_MACS[0]) / IP(src=OWN_VTEP, dst=GATEWAY_VTEP) / udp()
    ),
    "ARP": bytes(Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(pdst=GATEWAY_VTEP)),
    "a later fragment": changed(OUTER_IP + 6, b"\x00\x10"),
}


@pytest.mark.parametrize("sent", NOT_OURS.values(), ids=NOT_OURS)
def test_what_is_not_ours_goes_on_to_the_kernel_as_it_is(gateway: GatewayPath, sent: bytes) -> None:
    outcome = gateway.receive(sent)
    assert (outcome.verdict, outcome.frame, outcome.counted) == (Verdict.NEXT, sent, {})


def test_a_frame_cut_short_anywhere_is_dropped(gateway: GatewayPath) -> None:
    gateway.route(RECEIVER.ip)
    for length in range(OUTER_UDP, len(ARRIVING)):
        outcome = gateway.receive(ARRIVING[:length])
        if length < OUTER_UDP + 8:
            assert (outcome.verdict, outcome.counted) == (Verdict.NEXT, {}), length
        else:
            assert outcome.counted == {0: {"TRUNCATED": 1}}, length


def test_no_byte_of_a_frame_can_be_wrong_in_a_way_that_is_not_counted(
    gateway: GatewayPath,
) -> None:
    gateway.route(RECEIVER.ip)
    for at in range(len(ARRIVING)):
        outcome = gateway.receive(changed(at, bytes([ARRIVING[at] ^ 0xFF])))
        match outcome.verdict:
            case Verdict.DROP:
                assert outcome.dropped is not None, at
            case Verdict.REDIRECT:
                assert outcome.counted[0]["relayed_packets"] == 1, at
            case Verdict.NEXT:
                assert outcome.counted == {}, at
