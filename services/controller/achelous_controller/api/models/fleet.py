"""Bodies about hosts and gateways."""

from ipaddress import IPv4Address
from typing import Annotated

from pydantic import AfterValidator, Field

from achelous_controller.api.models.common import (
    EXAMPLE_ID,
    EXAMPLE_TIME,
    Address,
    Body,
    Name,
    Timed,
    example,
)
from achelous_controller.domain.networks import RESERVED
from achelous_shared.names import GATEWAY_SHARDS

_DEFAULT_CAPACITY = 1_000


def _unicast(address: IPv4Address) -> IPv4Address:
    if any(address in network for network in RESERVED):
        raise ValueError(f"{address} is no unicast address: give the one of the underlay device")
    return address


Vtep = Annotated[
    Address,
    AfterValidator(_unicast),
    Field(description="Address on the underlay; no other host or gateway has it"),
]
Capacity = Annotated[int, Field(ge=1, le=100_000, description="The most vNICs that it runs")]


def _distinct(shards: list[int]) -> list[int]:
    if len(set(shards)) < len(shards):
        raise ValueError(f"{shards} names a shard twice: name each once")
    return shards


Shards = Annotated[
    list[Annotated[int, Field(ge=0, lt=GATEWAY_SHARDS)]],
    Field(min_length=1, max_length=GATEWAY_SHARDS),
    AfterValidator(_distinct),
]


class HostCreate(Body):
    """A new host."""

    model_config = example({"name": "h1", "vtep": "198.18.0.11", "capacity": 500})

    name: Name
    vtep: Vtep
    capacity: Capacity = _DEFAULT_CAPACITY


class HostUpdate(Body):
    """What changes; the rest stays."""

    model_config = example({"capacity": 800})

    name: Name | None = None
    capacity: Capacity | None = None
    draining: bool | None = Field(
        None,
        description="True: it takes no new instances, whether one is chosen for them or they name"
        " it; those on it stay until they are moved or deleted",
    )


class Host(Timed):
    """A host."""

    model_config = example(
        {
            "id": EXAMPLE_ID,
            "version": 1,
            "created_at": EXAMPLE_TIME,
            "name": "h1",
            "vtep": "198.18.0.11",
            "capacity": 500,
            "vnic_count": 3,
            "draining": False,
            "revision": 17,
        }
    )

    name: str
    vtep: IPv4Address
    capacity: int
    vnic_count: int
    draining: bool = Field(description="Whether it takes no new instances")
    revision: int = Field(description="Of what the host shall run")


class GatewayCreate(Body):
    """A new gateway."""

    model_config = example({"name": "g1", "vtep": "198.18.0.1"})

    name: Name
    vtep: Vtep
    shards: Shards = Field(
        list(range(GATEWAY_SHARDS)),
        description=f"It serves the VPCs whose VNI modulo {GATEWAY_SHARDS} is one of these;"
        " without this, all. To move a shard, add a gateway and then remove the other one",
    )


class GatewayUpdate(Body):
    """What changes; the rest stays."""

    model_config = example({"name": "g1-east"})

    name: Name | None = None


class Gateway(Timed):
    """A gateway."""

    model_config = example(
        {
            "id": EXAMPLE_ID,
            "version": 1,
            "created_at": EXAMPLE_TIME,
            "name": "g1",
            "vtep": "198.18.0.1",
            "shards": [0, 1, 2, 3],
        }
    )

    name: str
    vtep: IPv4Address
    shards: list[int] = Field(description="VNIs modulo 64 of the VPCs that it serves")
