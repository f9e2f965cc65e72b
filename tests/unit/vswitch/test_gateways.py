"""Which gateways have a share, and what the packet path is told of the fleet."""

from uuid import UUID

import numpy as np
import pytest
from vswitch_memory import memory_dataplane

from achelous_shared.messages import BadMessage, FleetDocument, GatewayAddress
from achelous_shared.routes import MalformedTable
from achelous_vswitch.dataplane import Dataplane
from achelous_vswitch.gateways import VTEP_GATEWAY, VTEP_HOST, Gateway, Gateways

OWN, PEER, FIRST, SECOND = 1, 2, 11, 12


def fleet(*gateways: int, revision: int = 1, hosts: tuple[int, ...] = (OWN, PEER)) -> FleetDocument:
    return FleetDocument(
        revision=revision,
        host_vteps=b"".join(host.to_bytes(4) for host in hosts),
        gateways=tuple(
            GatewayAddress(gateway_id=UUID(int=vtep), name=f"gw{vtep}", vtep=vtep)
            for vtep in gateways
        ),
    )


@pytest.fixture
def dataplane() -> Dataplane:
    return memory_dataplane()


@pytest.fixture
def gateways(dataplane: Dataplane) -> Gateways:
    """Two of them, which answered well."""
    found = Gateways(dataplane.gateways, dataplane.vteps)
    found.apply(fleet(FIRST, SECOND), OWN)
    for gateway in found:
        gateway.heard = True
    found.share_out()
    return found


def one(gateways: Gateways, vtep: int) -> Gateway:
    return next(gateway for gateway in gateways if gateway.vtep == vtep)


def sharing(dataplane: Dataplane) -> set[int]:
    return set(dataplane.gateways[:1024].tolist())


def known(dataplane: Dataplane) -> dict[int, int]:
    keys, kinds = dataplane.vteps.lookup_batch_all()
    return dict(zip(keys.tolist(), kinds.tolist(), strict=True))


def test_the_packet_path_knows_all_vteps_but_the_own(
    gateways: Gateways, dataplane: Dataplane
) -> None:
    assert known(dataplane) == {PEER: VTEP_HOST, FIRST: VTEP_GATEWAY, SECOND: VTEP_GATEWAY}


def test_a_new_document_is_applied_by_difference(gateways: Gateways, dataplane: Dataplane) -> None:
    assert gateways.apply(fleet(FIRST, revision=2, hosts=(OWN, 3)), OWN)
    assert known(dataplane) == {3: VTEP_HOST, FIRST: VTEP_GATEWAY}
    assert sharing(dataplane) == {FIRST}


def test_an_older_document_changes_nothing(gateways: Gateways, dataplane: Dataplane) -> None:
    gateways.apply(fleet(FIRST, SECOND, revision=7), OWN)
    assert not gateways.apply(fleet(revision=6), OWN)
    assert sharing(dataplane) == {FIRST, SECOND}


def test_a_malformed_document_changes_nothing(gateways: Gateways, dataplane: Dataplane) -> None:
    bad = FleetDocument(revision=9, host_vteps=b"12345", gateways=())
    with pytest.raises(MalformedTable):
        gateways.apply(bad, OWN)
    assert sharing(dataplane) == {FIRST, SECOND}
    assert gateways.revision == 1


@pytest.mark.parametrize(("lost", "shares"), [(2, {FIRST, SECOND}), (3, {SECOND})])
def test_three_lost_probes_take_the_share_away(
    gateways: Gateways, dataplane: Dataplane, lost: int, shares: set[int]
) -> None:
    one(gateways, FIRST).sent += lost
    gateways.share_out()
    assert sharing(dataplane) == shares


def test_a_stale_heartbeat_takes_the_share_away(gateways: Gateways, dataplane: Dataplane) -> None:
    one(gateways, SECOND).fresh = False
    gateways.share_out()
    assert sharing(dataplane) == {FIRST}


def test_with_none_live_all_keep_their_share(gateways: Gateways, dataplane: Dataplane) -> None:
    for gateway in gateways:
        gateway.sent += 9
    gateways.share_out()
    assert sharing(dataplane) == {FIRST, SECOND}


def test_a_new_gateway_gets_its_share_when_it_has_answered(
    gateways: Gateways, dataplane: Dataplane
) -> None:
    gateways.apply(fleet(FIRST, SECOND, 13, revision=2), OWN)
    assert sharing(dataplane) == {FIRST, SECOND}
    one(gateways, 13).heard = True
    gateways.share_out()
    assert sharing(dataplane) == {FIRST, SECOND, 13}


def test_a_new_agent_keeps_the_shares_that_it_finds(
    gateways: Gateways, dataplane: Dataplane
) -> None:
    one(gateways, SECOND).fresh = False
    gateways.share_out()
    before = dataplane.gateways.copy()
    Gateways(dataplane.gateways, dataplane.vteps).apply(fleet(FIRST, SECOND), OWN)
    assert (dataplane.gateways == before).all()


def test_shares_from_before_there_were_shards_are_those_of_all(
    gateways: Gateways, dataplane: Dataplane
) -> None:
    dataplane.gateways[1024:] = 0
    Gateways(dataplane.gateways, dataplane.vteps)
    shares = dataplane.gateways.reshape(-1, 1024)
    assert (shares == shares[0]).all()
    assert set(shares[0].tolist()) == {FIRST, SECOND}


def test_the_vpcs_of_a_shard_are_served_by_its_gateways_alone(
    gateways: Gateways, dataplane: Dataplane
) -> None:
    """The third gateway serves shards 5 and 6, and the others all but these."""
    others = tuple(range(5)) + tuple(range(7, 64))
    listed = tuple(
        GatewayAddress(gateway_id=UUID(int=vtep), name=f"gw{vtep}", vtep=vtep, shards=shards)
        for vtep, shards in ((FIRST, others), (SECOND, others), (13, (5, 6)))
    )
    gateways.apply(FleetDocument(revision=2, host_vteps=b"", gateways=listed), OWN)
    for gateway in gateways:
        gateway.heard = True
    gateways.share_out()

    assert sharing(dataplane) == {FIRST, SECOND}
    assert set(dataplane.gateways[5 * 1024 : 7 * 1024].tolist()) == {13}
    zero, five, six = gateways.groups_of(np.array([64, 64 + 5, 6], np.uint32)).tolist()
    assert zero != five == six
    assert [gateway.vtep for gateway in gateways.in_turn(five)] == [13]
    assert {gateway.vtep for gateway in gateways.in_turn(zero)} == {FIRST, SECOND}


def test_a_shard_that_there_can_not_be_is_refused(gateways: Gateways) -> None:
    stray = GatewayAddress(gateway_id=UUID(int=13), name="gw13", vtep=13, shards=(64,))
    with pytest.raises(BadMessage, match=r"gw13 serves \{64\}"):
        gateways.apply(FleetDocument(revision=2, host_vteps=b"", gateways=(stray,)), OWN)
    assert gateways.revision == 1


def test_live_gateways_are_asked_in_turn(gateways: Gateways) -> None:
    firsts = [gateways.in_turn(0)[0].vtep for _ in range(4)]
    assert sorted(firsts) == [FIRST, FIRST, SECOND, SECOND]
    one(gateways, FIRST).fresh = False
    gateways.share_out()
    assert [gateway.vtep for gateway in gateways.in_turn(0)] == [SECOND]
