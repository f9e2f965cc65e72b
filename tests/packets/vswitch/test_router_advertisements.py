"""Router solicitations (RFC 4861), answered on the host."""

from typing import Any

import pytest
from packets.datapath import Datapath
from packets.frames import guest
from packets.leases import LINK_LOCAL, ROUTER, bind, desired, from_router, to_all
from packets.outcome import Verdict
from scapy.layers.inet6 import (
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptRDNSS,
    ICMPv6NDOptSrcLLAddr,
)

from achelous_shared.routes import ip_bytes

pytestmark = pytest.mark.kernel

ME = guest("10.0.0.5")
ROUTERS = "ff02::2"
HEAD = ICMPv6ND_RA(chlim=64, M=1, O=1, prf=0, routerlifetime=65535, reachabletime=0, retranstimer=0)
PREFIX = ICMPv6NDOptPrefixInfo(
    prefixlen=64, L=1, A=0, validlifetime=2_592_000, preferredlifetime=604_800, prefix="fd00:1::"
)
COMMON = (ICMPv6NDOptSrcLLAddr(lladdr=ROUTER), ICMPv6NDOptMTU(mtu=1450), PREFIX)
RDNSS = ICMPv6NDOptRDNSS(dns=["fd00:1::53"], lifetime=65535)


@pytest.mark.parametrize(
    ("source", "options", "to"),
    [
        (LINK_LOCAL, (ICMPv6NDOptSrcLLAddr(lladdr=ME.mac),), LINK_LOCAL),
        (LINK_LOCAL, (), LINK_LOCAL),
        ("fd00:1::5", (), "fd00:1::5"),
        ("::", (), "ff02::1"),
    ],
    ids=["with its MAC", "plain", "from its own address", "from no address yet"],
)
def test_a_guest_is_told_its_router_prefix_mtu_and_resolvers(
    datapath: Datapath, source: str, options: tuple[Any, ...], to: str
) -> None:
    me = bind(datapath, desired(ME), ME)

    outcome = datapath.send(me, to_all(ME, ROUTERS, ICMPv6ND_RS(), *options, source=source))

    assert outcome.verdict is Verdict.REDIRECT
    assert outcome.frame == from_router(ME, HEAD, *COMMON, RDNSS, to=to)
    assert outcome.counted == {}


def test_four_resolvers_fit(datapath: Datapath) -> None:
    servers = [f"fd00:1::{n}" for n in range(4)]
    me = bind(datapath, desired(ME, dns=tuple(map(ip_bytes, servers))), ME)

    outcome = datapath.send(me, to_all(ME, ROUTERS, ICMPv6ND_RS()))

    rdnss = ICMPv6NDOptRDNSS(dns=servers, lifetime=65535)
    assert outcome.frame == from_router(ME, HEAD, *COMMON, rdnss)


def test_without_resolvers_none_is_named(datapath: Datapath) -> None:
    me = bind(datapath, desired(ME, dns=()), ME)

    outcome = datapath.send(me, to_all(ME, ROUTERS, ICMPv6ND_RS()))

    assert outcome.frame == from_router(ME, HEAD, *COMMON)


MAC = ICMPv6NDOptSrcLLAddr(lladdr=ME.mac)
MALFORMED: dict[str, tuple[bytes, str]] = {
    "not from the link": (to_all(ME, ROUTERS, ICMPv6ND_RS(), hlim=254), "BAD_RS"),
    "a code": (to_all(ME, ROUTERS, ICMPv6ND_RS(code=1)), "BAD_RS"),
    "another's address": (to_all(ME, ROUTERS, ICMPv6ND_RS(), source="fd00:1::6"), "SPOOFED_IP"),
    "a MAC but no address": (to_all(ME, ROUTERS, ICMPv6ND_RS(), MAC, source="::"), "BAD_RS"),
    "an option of no length": (to_all(ME, ROUTERS, ICMPv6ND_RS(), bytes(8)), "BAD_RS"),
    "an option beyond the end": (to_all(ME, ROUTERS, ICMPv6ND_RS(), b"\1\2" + bytes(6)), "BAD_RS"),
    "half an option": (to_all(ME, ROUTERS, ICMPv6ND_RS(), b"\1\1\0\0"), "BAD_RS"),
    "a length beyond the frame": (to_all(ME, ROUTERS, ICMPv6ND_RS(), plen=64), "TRUNCATED"),
    "a length too short": (to_all(ME, ROUTERS, ICMPv6ND_RS(), plen=4), "BAD_RS"),
}


@pytest.mark.parametrize(("sent", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_solicitation_is_counted(datapath: Datapath, sent: bytes, reason: str) -> None:
    me = bind(datapath, desired(ME), ME)

    outcome = datapath.send(me, sent)

    assert (outcome.verdict, outcome.counted) == (Verdict.DROP, {me.slot: {reason: 1}})


def test_a_vnic_without_ipv6_has_no_router(datapath: Datapath) -> None:
    me = bind(datapath, desired(ME, ip6=b"", router6=b"", prefix_len6=0), ME)

    assert datapath.send(me, to_all(ME, ROUTERS, ICMPv6ND_RS())).verdict is Verdict.DROP
