"""What is asked of the API, byte for byte what a schema would say."""

from ipaddress import IPv4Address
from uuid import UUID

import msgspec

from achelous_loadgen.sim.host import Place
from achelous_loadgen.tenant import Created, Vnic, Vpc
from achelous_shared.routes import ip_bytes, mac_bytes

A = Place(UUID(int=1), IPv4Address("198.19.0.1"))
B = Place(UUID(int=2), IPv4Address("198.19.0.2"))
VPC = Vpc("vpc", "subnet", 5, "alm")


def test_a_single_instance_names_its_host_and_may_name_its_address() -> None:
    assert msgspec.json.decode(VPC.body(A, "one", "10.0.0.9")) == {
        "name": "one",
        "kind": "container",
        "host_id": str(A.id),
        "vnics": [{"subnet_id": "subnet", "ip": "10.0.0.9"}],
    }


def test_a_batch_is_single_ones_dealt_out_to_the_hosts() -> None:
    batch = msgspec.json.decode(VPC.batch([A, B], 3, "b"))

    singles = [VPC.body(A, "b-0"), VPC.body(B, "b-1"), VPC.body(A, "b-2")]
    assert batch == {"instances": [msgspec.json.decode(single) for single in singles]}


def test_targets_are_addresses_macs_and_places() -> None:
    one = Created("1", str(A.id), [Vnic("10.0.1.2", "02:00:00:00:00:07")])

    targets = VPC.targets([one, one], [A.vtep, None])

    assert targets.keys == 2 * ip_bytes("10.0.1.2")
    assert targets.macs == 2 * mac_bytes("02:00:00:00:00:07")
    assert targets.vteps == A.vtep.packed + bytes(4)
