"""What a trace foretells of a gateway is what it then does, and changes nothing in it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from packets.datapath import GATEWAY_VTEP, OWN_VTEP, PEER_VTEP, VNI
from packets.frames import frame, guest, udp, vxlan
from packets.gateway_path import OTHER_GATEWAY, GatewayPath
from packets.outcome import LOOPBACK, read_counters

from achelous_gateway.relay import COPIES
from achelous_shared.bpf import BpfObject, TracedPath, load_traced
from achelous_shared.tracing import reply_of, view

pytestmark = pytest.mark.kernel

A, B = guest("10.0.0.5"), "10.0.0.9"


@pytest.fixture(scope="session")
def second(relay: BpfObject, objects: Path) -> Iterator[TracedPath]:
    traced = load_traced(objects / "gateway.trace.o", relay.maps, COPIES)
    yield traced
    traced.close()


def relayed(to: str = B, *, vtep: str = OWN_VTEP, **more: int) -> bytes:
    inner = frame(A, to, udp())
    return vxlan(inner, vteps=(vtep, GATEWAY_VTEP), vni=VNI, dmac="0e:ac:e1:00:00:01", **more)


CASES: Final = {
    "relayed": (relayed(), "sent", ""),
    "no route": (relayed("10.0.0.77"), "dropped", "no_route"),
    "of a gateway": (relayed(vtep=OTHER_GATEWAY), "dropped", "gateway_loop"),
    "unknown VTEP": (relayed(vtep="198.18.0.77"), "dropped", "unknown_vtep"),
    "TTL 1": (relayed(ttl=1), "dropped", "ttl_expired"),
    "no flag I": (relayed(flags=0), "dropped", "bad_vxlan"),
    "not VXLAN": (frame(A, B, udp()), "passed", ""),
}


@pytest.mark.parametrize("name", CASES)
def test_the_relay_does_what_was_foretold(
    gateway: GatewayPath, second: TracedPath, name: str
) -> None:
    data, verdict, reason = CASES[name]
    gateway.route(B, PEER_VTEP)
    gateway.configure(push_interval_ns=10**9, push_per_window=10)
    before = read_counters(gateway.loaded)

    run = second.run("relay", data, LOOPBACK, {})

    assert read_counters(gateway.loaded) == before
    assert len(gateway.table("pushed").lookup_batch_all()[0]) == 0
    reply = reply_of(second, run, tuple(view(second, step) for step in run.steps))
    assert (reply.verdict, reply.reason) == (verdict, reason)
    assert reply.to_vtep == (PEER_VTEP if verdict == "sent" else "")
    real = gateway.receive(data)
    assert (run.verdict, run.frame) == (real.verdict, real.frame)


@pytest.mark.parametrize("held", [True, False])
def test_a_trace_tells_of_the_route_and_not_of_how_it_is_found(
    gateway: GatewayPath, second: TracedPath, held: bool
) -> None:
    if held:
        gateway.route(B, PEER_VTEP)
    run = second.run("relay", relayed(), LOOPBACK, {})
    [step] = [view(second, step) for step in run.steps if "route" in step.table]
    assert (step.table, step.key, step.found) == ("routes", {"vni": VNI, "ip": B}, held)
    assert step.entry.get("vtep") == (PEER_VTEP if held else None)
