"""Routes that nobody asked for: what is valid is taken, the rest changes nothing."""

import asyncio

import numpy as np
import pytest
from vswitch_memory import memory_dataplane

from achelous_shared import rsp
from achelous_shared.routes import ip_bytes
from achelous_vswitch.dataplane import Dataplane
from achelous_vswitch.fc import ForwardingCache
from achelous_vswitch.metrics import Metrics
from achelous_vswitch.pushed import Pushed

VNI, OWN = 9, 1


@pytest.fixture
def dataplane() -> Dataplane:
    """The packet path of a host that has a vNIC in VPC 9."""
    dataplane = memory_dataplane(fc=64)
    dataplane.config["vtep"] = OWN
    dataplane.vnis.update(np.uint32(VNI), np.uint32(1))
    return dataplane


@pytest.fixture
def cache(dataplane: Dataplane) -> ForwardingCache:
    return ForwardingCache(dataplane.fc, dataplane.fc_index, rest_s=0)


def message(*routes: tuple[int, int, int]) -> bytes:
    """(VNI, last byte of the address, VTEP) each, as of revision 6."""
    ips = b"".join(ip_bytes(f"10.0.0.{number}") for _, number, _ in routes)
    keys = np.frombuffer(ips, np.uint8).reshape(-1, 16)
    entries = np.zeros(len(routes), rsp.REPLY)
    asked = rsp.requests([vni for vni, _, _ in routes], keys)
    for name in rsp.REQUEST.names or ():
        entries[name] = asked[name]
    entries["type"], entries["length"], entries["mtu"] = rsp.ReplyType.ROUTE, 16, 1500
    entries["revision"], entries["as_of"] = 5, 6
    entries["next_hop"][:, 10:12] = 0xFF
    entries["next_hop"][:, 15] = [vtep for _, _, vtep in routes]
    return rsp.encode(rsp.MessageType.PUSH, 0, entries)


def test_routes_to_other_hosts_in_local_vpcs_are_taken(
    dataplane: Dataplane, cache: ForwardingCache
) -> None:
    pushed = Pushed(dataplane, cache, Metrics())
    asyncio.run(pushed.on_push(message((VNI, 1, 2), (VNI, 2, OWN), (8, 3, 2), (VNI, 4, 0))))
    [slot] = cache.used().tolist()
    assert cache.slot_of(VNI, ip_bytes("10.0.0.1")) == slot
    view = cache.views.get(VNI)
    assert view is not None
    assert view.revision == 6


@pytest.mark.parametrize("data", [b"", b"noise", message((VNI, 1, 2))[:-1]])
def test_what_is_no_push_is_counted(
    dataplane: Dataplane, cache: ForwardingCache, data: bytes
) -> None:
    metrics = Metrics()
    asyncio.run(Pushed(dataplane, cache, metrics).on_push(data))
    assert len(cache) == 0
    name, labels = "achelous_vswitch_bus_rejected_total", {"reason": "garbage"}
    assert metrics.registry.get_sample_value(name, labels) == 1


def test_routes_of_a_vpc_that_is_programmed_ahead_are_not_taken(
    dataplane: Dataplane, cache: ForwardingCache
) -> None:
    pushed = Pushed(dataplane, cache, Metrics(), ahead=lambda: {VNI})
    asyncio.run(pushed.on_push(message((VNI, 1, 2))))
    assert not len(cache)
