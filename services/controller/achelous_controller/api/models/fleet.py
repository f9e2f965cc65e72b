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
            "revision": 17,
        }
    )

    name: str
    vtep: IPv4Address
    capacity: int
    vnic_count: int
    revision: int = Field(description="Of what the host shall run")


class GatewayCreate(Body):
    """A new gateway."""

    model_config = example({"name": "g1", "vtep": "198.18.0.1"})

    name: Name
    vtep: Vtep


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
        }
    )

    name: str
    vtep: IPv4Address
