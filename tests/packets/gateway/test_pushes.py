"""The relay tells its agent for which hosts it relayed, within limits, and only if it is to."""

from ipaddress import IPv4Address
from typing import Any

import pytest
from packets.datapath import GATEWAY_VTEP, OWN_VTEP, PEER_VTEP, VNI
from packets.frames import ROUTER, Guest, frame, guest, udp, vxlan
from packets.gateway_path import GatewayPath

from achelous_shared.bpf import RingBuffer, dtype_of

pytestmark = pytest.mark.kernel

ME, PEER = guest("10.0.0.5"), guest("10.0.0.9")
SECOND = 10**9


@pytest.fixture
def pushing(gateway: GatewayPath) -> GatewayPath:
    """One that tells, with a route to the peer."""
    gateway.configure(push_interval_ns=3600 * SECOND, push_per_window=1000)
    gateway.route("10.0.0.9")
    return gateway


def relayed(source: Guest, target: Guest, vtep: str = OWN_VTEP) -> bytes:
    """A packet that the host of this VTEP has relayed."""
    inner = frame(source, target.ip, udp())
    return vxlan(inner, vteps=(vtep, GATEWAY_VTEP), vni=VNI, dmac=ROUTER)


def told(gateway: GatewayPath) -> list[tuple[Any, ...]]:
    """(VNI, last address byte, VTEP) of each event."""
    ring = RingBuffer(gateway.table("relayed_for"), dtype_of(gateway.loaded, "ach_relayed_event"))
    return [
        (int(event["vni"]), int(event["ip"][15]), str(IPv4Address(int(event["vtep"]))))
        for event in ring.read(1000)
    ]


def test_a_host_is_told_of_once_per_destination(pushing: GatewayPath) -> None:
    for _ in range(3):
        pushing.receive(relayed(ME, PEER))
    assert told(pushing) == [(VNI, 9, OWN_VTEP)]
    pushing.receive(relayed(ME, PEER, PEER_VTEP))
    assert told(pushing) == [(VNI, 9, PEER_VTEP)]


def test_a_destination_without_a_route_is_not_told_of(pushing: GatewayPath) -> None:
    pushing.receive(relayed(ME, guest("10.0.0.77")))
    assert told(pushing) == []


def test_all_hosts_together_are_limited(pushing: GatewayPath) -> None:
    pushing.configure(push_per_window=0)
    pushing.receive(relayed(ME, PEER))
    assert told(pushing) == []


def test_it_tells_nothing_unless_it_is_to(pushing: GatewayPath) -> None:
    pushing.configure(push_interval_ns=0)
    pushing.receive(relayed(ME, PEER))
    assert told(pushing) == []
