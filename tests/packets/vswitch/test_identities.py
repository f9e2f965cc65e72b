"""Rules that name a security group: by the number that a packet, port or FC entry has for it."""

import pytest
from packets.datapath import OWN_VTEP, PEER_VTEP, VNI, Datapath, Port, Rule
from packets.frames import ETHERNET, OUTER, frame, guest, ping, tcp, udp, vxlan
from packets.outcome import Outcome, Verdict

pytestmark = pytest.mark.kernel

ME, NEIGHBOUR, PEER = guest("10.0.0.5"), guest("10.0.0.6"), guest("10.0.0.9")
WEB, DB = 17, 4711
FROM_WEB = Rule(identities=(WEB,))
VXLAN_AT = ETHERNET + 28


def arrive(datapath: Datapath, port: Port, identity: int, layers: object = None) -> Outcome:
    inner = frame(PEER, port.guest.ip, layers or udp())
    return datapath.receive(
        vxlan(inner, vteps=(PEER_VTEP, OWN_VTEP), vni=VNI, dmac=port.guest.mac, identity=identity)
    )


@pytest.mark.parametrize("identity", [0, 1, WEB, 0x8000, 0xFFFF])
def test_the_group_policy_field_is_sent_only_when_it_says_something(
    datapath: Datapath, identity: int
) -> None:
    me = datapath.port(ME.ip, identity=identity)
    sent = datapath.send(me, frame(ME, PEER.ip, udp())).frame
    flags = b"\x88\0" + identity.to_bytes(2) if identity else b"\x08\0\0\0"
    assert sent[VXLAN_AT : VXLAN_AT + 8] == flags + VNI.to_bytes(3) + b"\0"


@pytest.mark.parametrize(("identity", "allowed"), [(WEB, True), (DB, False), (0, False)])
def test_a_rule_for_packets_from_a_group(datapath: Datapath, identity: int, allowed: bool) -> None:
    me = datapath.port(ME.ip, allow_in=[FROM_WEB])
    outcome = arrive(datapath, me, identity)
    assert outcome.dropped == (None if allowed else "1:ACL_INGRESS")


def test_the_number_counts_only_with_its_flag(datapath: Datapath) -> None:
    datapath.port(ME.ip, allow_in=[FROM_WEB])
    sent = bytearray(
        vxlan(
            frame(PEER, ME.ip, udp()),
            vteps=(PEER_VTEP, OWN_VTEP), vni=VNI, dmac=ME.mac, identity=WEB,
        )
    )  # fmt: skip
    sent[VXLAN_AT] &= 0x7F
    assert datapath.receive(bytes(sent)).dropped == "1:ACL_INGRESS"
    assert len(sent) > ETHERNET + OUTER


@pytest.mark.parametrize(("identity", "reason"), [(WEB, None), (DB, "1:ACL_INGRESS")])
def test_on_one_host_the_senders_own_number_counts(
    datapath: Datapath, identity: int, reason: str | None
) -> None:
    me = datapath.port(ME.ip, identity=identity)
    datapath.port(NEIGHBOUR.ip, allow_in=[FROM_WEB])
    assert datapath.send(me, frame(ME, NEIGHBOUR.ip, udp())).dropped == reason


@pytest.mark.parametrize(("identity", "reason"), [(DB, None), (WEB, "1:ACL_EGRESS")])
@pytest.mark.parametrize("where", ["here", "away"])
def test_a_rule_for_packets_to_a_group(
    datapath: Datapath, where: str, identity: int, reason: str | None
) -> None:
    me = datapath.port(ME.ip, allow_out=[Rule(identities=(DB,))])
    if where == "here":
        datapath.port(PEER.ip, identity=identity)
    else:
        datapath.route(PEER.ip, identity=identity)
    assert datapath.send(me, frame(ME, PEER.ip, udp())).dropped == reason


def test_where_only_the_unknown_number_decides_the_packet_waits_for_it(datapath: Datapath) -> None:
    me = datapath.port(ME.ip, allow_out=[Rule(identities=(DB,))])
    sent = frame(ME, PEER.ip, tcp())
    assert datapath.send(me, sent).dropped == "1:IDENTITY_UNKNOWN"
    assert datapath.learned() == [(VNI, PEER.ip, me.slot)]
    datapath.route(PEER.ip, identity=DB)
    assert datapath.send(me, sent).verdict is Verdict.REDIRECT


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ([Rule(identities=(DB,)), Rule()], None),
        ([Rule(identities=(DB,), allow=False), Rule(priority=7)], None),
        ([Rule(identities=(DB,)), Rule(allow=False, priority=7)], "1:ACL_EGRESS"),
        ([Rule(identities=(DB,), proto=6)], "1:ACL_EGRESS"),
        ([Rule(identities=(DB,), allow=False), Rule()], "1:IDENTITY_UNKNOWN"),
    ],
    ids=["allowed anyway", "by a rule before it", "denied before it", "another protocol", "open"],
)  # fmt: skip
def test_where_it_would_not_decide_nothing_waits(
    datapath: Datapath, rules: list[Rule], reason: str | None
) -> None:
    me = datapath.port(ME.ip, allow_out=rules)
    assert datapath.send(me, frame(ME, PEER.ip, udp())).dropped == reason


def test_a_sender_that_leaves_the_group_loses_its_sessions_and_others_do_not(
    datapath: Datapath,
) -> None:
    me = datapath.port(ME.ip, allow_in=[FROM_WEB])
    for sport in (1, 2):
        assert arrive(datapath, me, WEB, udp(sport, 80)).verdict is Verdict.REDIRECT
    assert arrive(datapath, me, DB, udp(1, 80)).dropped == "1:ACL_INGRESS"
    assert len(datapath.sessions()) == 1
    assert arrive(datapath, me, WEB, udp(2, 80)).counted == {1: {"rx_packets": 1, "rx_bytes": 50}}


def test_a_receiver_that_leaves_the_group_loses_its_sessions(datapath: Datapath) -> None:
    me = datapath.port(ME.ip, allow_out=[Rule(identities=(DB,))])
    datapath.route(PEER.ip, identity=DB)
    sent = frame(ME, PEER.ip, udp())
    assert datapath.send(me, sent).verdict is Verdict.REDIRECT
    datapath.route(PEER.ip, identity=WEB, revision=2)
    assert datapath.send(me, sent).dropped == "1:ACL_EGRESS"
    assert len(datapath.sessions()) == 0


def test_a_running_session_outlives_the_cached_route_of_its_peer(datapath: Datapath) -> None:
    me = datapath.port(ME.ip, allow_out=[Rule(identities=(DB,))])
    datapath.route(PEER.ip, identity=DB)
    sent = frame(ME, PEER.ip, udp())
    datapath.send(me, sent)
    datapath.forget(PEER.ip)
    assert datapath.send(me, sent).counted[me.slot]["relayed"] == 1
    datapath.allow(me, out=[Rule(identities=(DB,), proto=17)])
    assert datapath.send(me, sent).counted[me.slot]["relayed"] == 1


def test_the_replier_needs_no_number(datapath: Datapath) -> None:
    me = datapath.port(ME.ip, allow_in=[FROM_WEB], allow_out=[])
    arrive(datapath, me, WEB, udp(1000, 2000))
    answer = frame(ME, PEER.ip, udp(2000, 1000))
    assert datapath.send(me, answer).verdict is Verdict.REDIRECT
    datapath.route(PEER.ip, identity=DB)  # what the FC says lags behind what packets say
    assert datapath.send(me, answer).verdict is Verdict.REDIRECT
    datapath.allow(me, into=[FROM_WEB, Rule(proto=6)])
    assert datapath.send(me, answer).verdict is Verdict.REDIRECT


@pytest.mark.parametrize(
    ("code_range", "allowed"),
    [
        ((0x0800, 0x08FF), True),
        ((0x0800, 0x0800), True),
        ((0, 0xFF), False),
        ((0x0801, 0xFFFF), False),
    ],
    ids=["its type", "type and code", "another type", "types above"],
)  # fmt: skip
def test_a_rule_by_icmp_type(
    datapath: Datapath, code_range: tuple[int, int], allowed: bool
) -> None:
    me = datapath.port(ME.ip, allow_in=[Rule(proto=1, ports=code_range)], allow_out=[])
    outcome = arrive(datapath, me, 0, ping(7))
    assert outcome.dropped == (None if allowed else "1:ACL_INGRESS")
    if allowed:
        datapath.allow(me, into=[Rule(proto=1, ports=code_range), Rule(proto=6)])
        answer = frame(ME, PEER.ip, ping(7, reply=True))
        assert datapath.send(me, answer).verdict is Verdict.REDIRECT
