"""DHCPv6 (RFC 8415), answered on the host from the vNIC's own configuration."""

from typing import Any

import pytest
from packets.datapath import Datapath
from packets.frames import guest
from packets.leases import ROUTER, bind, desired, from_router, to_all
from packets.outcome import Verdict
from scapy.layers import dhcp6 as d
from scapy.layers.inet import UDP

pytestmark = pytest.mark.kernel

ME = guest("10.0.0.5")
SERVERS = "ff02::1:2"
TRANSACTION = 0xABCDEF
CLIENT = d.DHCP6OptClientId(duid=d.DUID_LLT(timeval=77, lladdr=ME.mac))
SERVER = d.DHCP6OptServerId(duid=d.DUID_LL(lladdr=ROUTER))
OTHER = d.DHCP6OptServerId(duid=d.DUID_LL(lladdr="02:00:00:00:00:99"))
DNS = d.DHCP6OptDNSServers(dnsservers=["fd00:1::53"])
IA = d.DHCP6OptIA_NA(iaid=0x0A0B0C0D, T1=0, T2=0)
GIVEN = d.DHCP6OptIA_NA(
    iaid=0x0A0B0C0D, T1=400, T2=700,
    ianaopts=[d.DHCP6OptIAAddress(addr="fd00:1::5", preflft=800, validlft=800)],
)  # fmt: skip


def named(*addresses: str) -> Any:
    """An IA that asks for these."""
    options = [d.DHCP6OptIAAddress(addr=address) for address in addresses]
    return d.DHCP6OptIA_NA(iaid=0x0A0B0C0D, ianaopts=options)


def status(code: int) -> Any:
    return d.DHCP6OptStatusCode(statuscode=code, statusmsg=b"")


def joined(kind: Any, options: tuple[Any, ...]) -> Any:
    message = kind(trid=TRANSACTION)
    for option in options:
        message /= option
    return message


def asked(kind: Any, *options: Any, **ip: Any) -> bytes:
    return to_all(ME, SERVERS, UDP(sport=546, dport=547) / joined(kind, options), **ip)


def told(kind: Any, *options: Any) -> bytes:
    return from_router(ME, UDP(sport=547, dport=546) / joined(kind, options))


ANSWERS: dict[str, tuple[bytes, bytes]] = {
    "solicit": (
        asked(d.DHCP6_Solicit, CLIENT, IA),
        told(d.DHCP6_Advertise, SERVER, DNS, GIVEN, CLIENT),
    ),
    "solicit with options first and requests": (
        asked(d.DHCP6_Solicit, d.DHCP6OptElapsedTime(), d.DHCP6OptOptReq(), IA, CLIENT),
        told(d.DHCP6_Advertise, SERVER, DNS, GIVEN, CLIENT),
    ),
    "solicit, rapid": (
        asked(d.DHCP6_Solicit, CLIENT, d.DHCP6OptRapidCommit(), IA),
        told(d.DHCP6_Reply, SERVER, DNS, GIVEN, d.DHCP6OptRapidCommit(), CLIENT),
    ),
    "request": (
        asked(d.DHCP6_Request, CLIENT, SERVER, named("fd00:1::5")),
        told(d.DHCP6_Reply, SERVER, DNS, GIVEN, CLIENT),
    ),
    "renew": (
        asked(d.DHCP6_Renew, CLIENT, SERVER, named("fd00:1::5"), source="fd00:1::5"),
        b"",
    ),
    "rebind": (
        asked(d.DHCP6_Rebind, CLIENT, named("fd00:1::5")),
        told(d.DHCP6_Reply, SERVER, DNS, GIVEN, CLIENT),
    ),
    "confirm": (
        asked(d.DHCP6_Confirm, CLIENT, named("fd00:1::5")),
        told(d.DHCP6_Reply, SERVER, status(0), CLIENT),
    ),
    "confirm of another link's": (
        asked(d.DHCP6_Confirm, CLIENT, named("fd00:1::5", "fd00:2::5")),
        told(d.DHCP6_Reply, SERVER, status(4), CLIENT),
    ),
    "release": (
        asked(d.DHCP6_Release, CLIENT, SERVER, named("fd00:1::5")),
        told(d.DHCP6_Reply, SERVER, status(0), CLIENT),
    ),
    "decline": (
        asked(d.DHCP6_Decline, CLIENT, SERVER, named("fd00:1::5")),
        told(d.DHCP6_Reply, SERVER, status(0), CLIENT),
    ),
    "information": (
        asked(d.DHCP6_InfoRequest, CLIENT),
        told(d.DHCP6_Reply, SERVER, DNS, CLIENT),
    ),
    "information for nobody in particular": (
        asked(d.DHCP6_InfoRequest),
        told(d.DHCP6_Reply, SERVER, DNS),
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_guest_gets_its_own_address_and_resolvers(datapath: Datapath, name: str) -> None:
    me = bind(datapath, desired(ME), ME)
    sent, wanted = ANSWERS[name]
    if not wanted:  # to the address that it was sent from
        reply = UDP(sport=547, dport=546) / joined(d.DHCP6_Reply, (SERVER, DNS, GIVEN, CLIENT))
        wanted = from_router(ME, reply, to="fd00:1::5")

    outcome = datapath.send(me, sent)

    assert outcome.verdict is Verdict.REDIRECT
    assert outcome.frame == wanted
    assert outcome.counted == {}


def nothing(iaid: int, code: int, *, prefix: bool = False) -> Any:
    """An IA without an address or prefix, and why."""
    if prefix:
        return d.DHCP6OptIA_PD(iaid=iaid, T1=0, T2=0, iapdopt=[status(code)])
    return d.DHCP6OptIA_NA(iaid=iaid, T1=0, T2=0, ianaopts=[status(code)])


OTHERS: dict[str, tuple[Any, Any, int, int]] = {
    "solicit": (d.DHCP6_Solicit, d.DHCP6_Advertise, 2, 6),
    "request": (d.DHCP6_Request, d.DHCP6_Reply, 2, 6),
    "renew": (d.DHCP6_Renew, d.DHCP6_Reply, 3, 3),
    "rebind": (d.DHCP6_Rebind, d.DHCP6_Reply, 3, 3),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_ias_are_told_that_there_is_nothing_for_them(datapath: Datapath, name: str) -> None:
    me = bind(datapath, desired(ME), ME)
    kind, reply, no_address, no_prefix = OTHERS[name]
    server = (SERVER,) if name in {"request", "renew"} else ()
    more = [d.DHCP6OptIA_NA(iaid=number, ianaopts=[GIVEN.ianaopts[0]]) for number in range(4)]

    outcome = datapath.send(me, asked(kind, CLIENT, *server, IA, d.DHCP6OptIA_PD(iaid=7), *more))

    refused = [nothing(7, no_prefix, prefix=True), *(nothing(n, no_address) for n in range(3))]
    assert outcome.frame == told(reply, SERVER, DNS, GIVEN, *refused, CLIENT)


def test_a_prefix_alone_is_refused(datapath: Datapath) -> None:
    me = bind(datapath, desired(ME), ME)
    outcome = datapath.send(me, asked(d.DHCP6_Solicit, CLIENT, d.DHCP6OptIA_PD(iaid=7)))
    refused = nothing(7, 6, prefix=True)
    assert outcome.frame == told(d.DHCP6_Advertise, SERVER, DNS, refused, CLIENT)


@pytest.mark.parametrize("length", [1, 2, 3, 127, 128])
def test_a_client_may_name_itself_at_any_length(datapath: Datapath, length: int) -> None:
    me = bind(datapath, desired(ME), ME)
    client = b"\0\1" + length.to_bytes(2, "big") + bytes(range(length))
    sent = to_all(ME, SERVERS, UDP(sport=546, dport=547) / (b"\1\1\2\3" + client))

    outcome = datapath.send(me, sent)

    reply = b"\2\1\2\3" + bytes(SERVER) + bytes(DNS) + client
    assert outcome.frame == from_router(ME, UDP(sport=547, dport=546) / reply)


@pytest.mark.parametrize(
    "sent",
    [
        asked(d.DHCP6_Request, CLIENT, OTHER, named("fd00:1::5")),
        asked(d.DHCP6_Release, CLIENT, OTHER, named("fd00:1::5")),
        asked(d.DHCP6_InfoRequest, CLIENT, OTHER),
    ],
    ids=["request", "release", "information"],
)
def test_what_is_for_another_server_is_left_to_it(datapath: Datapath, sent: bytes) -> None:
    me = bind(datapath, desired(ME), ME)

    outcome = datapath.send(me, sent)

    assert (outcome.verdict, outcome.counted) == (Verdict.DROP, {})


def raw(content: bytes) -> bytes:
    return to_all(ME, SERVERS, UDP(sport=546, dport=547) / content)


HEAD = b"\1\xab\xcd\xef"
MALFORMED: dict[str, tuple[bytes, str]] = {
    "solicit without a client": (asked(d.DHCP6_Solicit, IA), "BAD_DHCP"),
    "solicit of a server": (asked(d.DHCP6_Solicit, CLIENT, SERVER, IA), "BAD_DHCP"),
    "request of no server": (asked(d.DHCP6_Request, CLIENT, IA), "BAD_DHCP"),
    "rebind of a server": (asked(d.DHCP6_Rebind, CLIENT, SERVER, IA), "BAD_DHCP"),
    "confirm of nothing": (asked(d.DHCP6_Confirm, CLIENT, IA), "BAD_DHCP"),
    "information with an IA": (asked(d.DHCP6_InfoRequest, CLIENT, IA), "BAD_DHCP"),
    "a reply": (asked(d.DHCP6_Reply, CLIENT, SERVER), "BAD_DHCP"),
    "another's address": (asked(d.DHCP6_Solicit, CLIENT, IA, source="fd00:1::6"), "SPOOFED_IP"),
    "no transaction": (raw(b"\1\0"), "BAD_DHCP"),
    "half an option": (raw(HEAD + b"\0\1"), "BAD_DHCP"),
    "an option beyond the end": (raw(HEAD + b"\0\1\0\x20abcd"), "BAD_DHCP"),
    "an empty name": (raw(HEAD + b"\0\1\0\0"), "BAD_DHCP"),
    "a name of 131 bytes": (raw(HEAD + b"\0\1\0\x83" + bytes(131)), "BAD_DHCP"),
    "a short IA": (raw(HEAD + bytes(CLIENT) + b"\0\3\0\4abcd"), "BAD_DHCP"),
    "an address beyond its IA": (
        raw(HEAD + bytes(CLIENT) + b"\0\3\0\x10" + bytes(12) + b"\0\5\0\x18" + bytes(24)),
        "BAD_DHCP",
    ),
    "a short address": (
        raw(HEAD + bytes(CLIENT) + b"\0\3\0\x14" + bytes(12) + b"\0\5\0\4abcd"),
        "BAD_DHCP",
    ),
    "options without end": (raw(HEAD + b"\0\x63\0\0" * 65), "BAD_DHCP"),
}


@pytest.mark.parametrize(("sent", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_message_is_counted(datapath: Datapath, sent: bytes, reason: str) -> None:
    me = bind(datapath, desired(ME), ME)

    outcome = datapath.send(me, sent)

    assert (outcome.verdict, outcome.counted) == (Verdict.DROP, {me.slot: {reason: 1}})


def test_a_request_cut_short_anywhere_is_a_counted_drop(datapath: Datapath) -> None:
    me = bind(datapath, desired(ME), ME)
    whole = asked(d.DHCP6_Request, CLIENT, SERVER, named("fd00:1::5"))

    for length in range(14 + 40, len(whole)):  # the kernel runs no shorter frame
        outcome = datapath.send(me, whole[:length])
        assert (outcome.verdict, outcome.dropped is not None) == (Verdict.DROP, True), length
