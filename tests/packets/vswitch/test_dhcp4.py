"""DHCP (RFC 2131), answered on the host from the vNIC's own configuration."""

from typing import Any

import pytest
from packets.datapath import Datapath
from packets.frames import BROADCAST, guest
from packets.leases import EVERYONE, bind, desired, dhcp, told
from packets.outcome import Verdict
from scapy.layers.l2 import Ether

from achelous_shared.routes import ip_bytes

pytestmark = pytest.mark.kernel

ME = guest("10.0.0.5")
SERVER = ("server_id", "10.0.0.1")
TIMES = (("lease_time", 800), ("renewal_time", 400), ("rebinding_time", 700))
REST = (
    ("subnet_mask", "255.255.255.0"),
    ("interface-mtu", 1450),
    ("broadcast_address", "10.0.0.255"),
    ("router", "10.0.0.1"),
    ("name_server", "10.0.0.53"),
    ("hostname", b"web-1"),
)
CLIENT = ("client_id", b"\x01\x02\x03\x04\x05\x06\x07")


def of_type(name: str, *options: Any) -> list[Any]:
    return [("message-type", name), *options, "end"]


def test_a_guest_without_an_address_is_offered_its_own(datapath: Datapath) -> None:
    me = bind(datapath, desired(ME), ME)

    outcome = datapath.send(me, dhcp(ME, of_type("discover")))

    assert outcome.verdict is Verdict.REDIRECT
    wanted = told(ME, of_type("offer", SERVER, *TIMES, *REST), to=ME.ip, yiaddr=ME.ip)
    assert outcome.frame == wanted
    assert outcome.counted == {}


@pytest.mark.parametrize(
    ("options", "asked", "to"),
    [
        ((SERVER, ("requested_addr", ME.ip)), {}, ME.ip),
        ((("requested_addr", ME.ip),), {}, ME.ip),
        ((("requested_addr", ME.ip),), {"flags": 0x8000}, EVERYONE),
        ((), {"ciaddr": ME.ip, "source": ME.ip}, ME.ip),
        ((), {"ciaddr": ME.ip, "source": ME.ip, "to": "10.0.0.1"}, ME.ip),
    ],
    ids=["selecting", "after a reboot", "by broadcast", "rebinding", "renewing"],
)
def test_its_own_address_is_acknowledged(
    datapath: Datapath, options: tuple[Any, ...], asked: dict[str, Any], to: str
) -> None:
    me = bind(datapath, desired(ME), ME)

    outcome = datapath.send(me, dhcp(ME, of_type("request", *options, CLIENT), **asked))

    kept = {name: asked[name] for name in ("flags", "ciaddr") if name in asked}
    wanted = of_type("ack", SERVER, *TIMES, *REST, CLIENT)
    assert outcome.frame == told(ME, wanted, to=to, yiaddr=ME.ip, **kept)
    assert outcome.counted == {}


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ((SERVER, ("requested_addr", "10.0.0.6")), {}),
        ((("requested_addr", "192.168.1.9"),), {}),
        ((), {"ciaddr": "10.0.0.6"}),
    ],
    ids=["another's", "one of another network", "one that it had"],
)
def test_another_address_is_refused(
    datapath: Datapath, options: tuple[Any, ...], asked: dict[str, Any]
) -> None:
    me = bind(datapath, desired(ME), ME)

    outcome = datapath.send(me, dhcp(ME, of_type("request", *options, CLIENT), **asked))

    assert outcome.frame == told(ME, of_type("nak", SERVER, CLIENT), to=EVERYONE)


def test_a_guest_that_has_an_address_is_told_the_rest(datapath: Datapath) -> None:
    me = bind(datapath, desired(ME), ME)
    inform = dhcp(ME, of_type("inform"), ciaddr=ME.ip, source=ME.ip)

    outcome = datapath.send(me, inform)

    assert outcome.frame == told(ME, of_type("ack", SERVER, *REST), to=ME.ip, ciaddr=ME.ip)


def test_a_router_outside_of_the_subnet_comes_with_a_route_to_it(datapath: Datapath) -> None:
    port = desired(
        ME, prefix_len=128, router=ip_bytes("169.254.1.1"), dns=(), hostname="", lease_s=80
    )
    me = bind(datapath, port, ME)

    outcome = datapath.send(me, dhcp(ME, of_type("discover")))

    wanted = of_type(
        "offer",
        ("server_id", "169.254.1.1"),
        ("lease_time", 80),
        ("renewal_time", 40),
        ("rebinding_time", 70),
        ("subnet_mask", "255.255.255.255"),
        ("interface-mtu", 1450),
        (121, bytes([32, 169, 254, 1, 1, 0, 0, 0, 0, 0, 169, 254, 1, 1])),
        ("router", "169.254.1.1"),
    )
    assert outcome.frame == told(ME, wanted, to=ME.ip, server="169.254.1.1", yiaddr=ME.ip)


@pytest.mark.parametrize(
    "options",
    [
        of_type("release", SERVER),
        of_type("decline", SERVER, ("requested_addr", ME.ip)),
        of_type("request", ("server_id", "10.0.0.9"), ("requested_addr", "10.0.0.6")),
    ],
    ids=["release", "decline", "another server's offer is taken"],
)
def test_what_needs_no_answer_gets_none(datapath: Datapath, options: list[Any]) -> None:
    me = bind(datapath, desired(ME), ME)

    outcome = datapath.send(me, dhcp(ME, options))

    assert (outcome.verdict, outcome.counted) == (Verdict.DROP, {})


MALFORMED: dict[str, tuple[bytes, str]] = {
    "a reply": (dhcp(ME, of_type("discover"), op=2), "BAD_DHCP"),
    "no Ethernet": (dhcp(ME, of_type("discover"), htype=6), "BAD_DHCP"),
    "a MAC of 16 bytes": (dhcp(ME, of_type("discover"), hlen=16), "BAD_DHCP"),
    "by a relay": (dhcp(ME, of_type("discover"), giaddr="10.0.0.9"), "BAD_DHCP"),
    "another's MAC": (dhcp(ME, of_type("discover"), chaddr=b"\2" * 16), "SPOOFED_MAC"),
    "another's address": (dhcp(ME, of_type("discover"), source="10.0.0.6"), "SPOOFED_IP"),
    "no cookie": (dhcp(ME, of_type("discover"), options=b"oops"), "BAD_DHCP"),
    "no type": (dhcp(ME, [("requested_addr", ME.ip), "end"]), "BAD_DHCP"),
    "a type of its own": (dhcp(ME, of_type("offer")), "BAD_DHCP"),
    "a type of two bytes": (dhcp(ME, [(53, b"\1\1"), "end"]), "BAD_DHCP"),
    "no end": (dhcp(ME, [("message-type", "discover")]), "BAD_DHCP"),
    "an address of 3 bytes": (dhcp(ME, of_type("request", (50, b"\1\2\3"))), "BAD_DHCP"),
    "a request for nothing": (dhcp(ME, of_type("request")), "BAD_DHCP"),
    "an option beyond the end": (dhcp(ME, [(53, b"\1"), b"\x3d\xff"]), "BAD_DHCP"),
    "a length beyond the frame": (dhcp(ME, of_type("discover"), udp={"len": 900}), "TRUNCATED"),
    "a length of nothing": (dhcp(ME, of_type("discover"), udp={"len": 8}), "BAD_DHCP"),
}


@pytest.mark.parametrize(("sent", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_message_is_counted(datapath: Datapath, sent: bytes, reason: str) -> None:
    me = bind(datapath, desired(ME), ME)

    outcome = datapath.send(me, sent)

    assert (outcome.verdict, outcome.counted) == (Verdict.DROP, {me.slot: {reason: 1}})


def test_a_request_cut_short_anywhere_is_a_counted_drop(datapath: Datapath) -> None:
    me = bind(datapath, desired(ME), ME)
    whole = dhcp(ME, of_type("request", SERVER, ("requested_addr", ME.ip), CLIENT))

    for length in range(14 + 20, len(whole)):  # the kernel runs no shorter frame
        outcome = datapath.send(me, whole[:length])
        assert (outcome.verdict, outcome.dropped is not None) == (Verdict.DROP, True), length


def test_a_vnic_that_is_told_nothing_yet_is_not_answered(datapath: Datapath) -> None:
    me = datapath.port(ME.ip)

    assert datapath.send(me, dhcp(ME, of_type("discover"))).dropped == f"{me.slot}:PORT_NOT_READY"


def test_other_datagrams_to_port_67_go_their_way(datapath: Datapath) -> None:
    """A guest may serve DHCP to others: what is for neither all nor the router is traffic."""
    me, peer = bind(datapath, desired(ME), ME), datapath.port("10.0.0.6")

    outcome = datapath.send(me, dhcp(ME, of_type("discover"), source=ME.ip, to="10.0.0.6"))

    assert outcome.verdict is Verdict.REDIRECT
    assert outcome.counted[peer.slot]["rx_packets"] == 1


def test_the_reply_goes_to_the_guest_alone(datapath: Datapath) -> None:
    me = bind(datapath, desired(ME), ME)

    sent = Ether(datapath.send(me, dhcp(ME, of_type("discover"), flags=0x8000)).frame)

    assert (sent.dst, sent["IP"].dst) == (ME.mac, EVERYONE)
    assert sent.dst != BROADCAST
