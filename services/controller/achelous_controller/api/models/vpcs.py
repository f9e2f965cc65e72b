"""Bodies about VPCs and subnets."""

from ipaddress import IPv4Address, IPv4Network
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field

from achelous_controller.api.models.common import (
    EXAMPLE_ID,
    EXAMPLE_TIME,
    Address,
    Body,
    Name,
    Network,
    Timed,
    example,
)
from achelous_controller.domain.networks import check_usable

_MIN_PREFIX = 8


def _subnet(network: IPv4Network) -> IPv4Network:
    if network.prefixlen < _MIN_PREFIX:
        raise ValueError(f"{network} is too wide: a subnet is a /{_MIN_PREFIX} at most")
    return check_usable(network)


class VpcCreate(Body):
    """A new VPC."""

    model_config = example({"name": "production"})

    name: Name
    project_id: UUID | None = Field(None, description="An operator has to name the project")


class VpcUpdate(Body):
    """What changes; the rest stays."""

    model_config = example({"name": "production-2"})

    name: Name | None = None


class Vpc(Timed):
    """A VPC, an address space of its own."""

    model_config = example(
        {
            "id": EXAMPLE_ID,
            "version": 1,
            "created_at": EXAMPLE_TIME,
            "project_id": EXAMPLE_ID,
            "name": "production",
            "vni": 4096,
            "revision": 12,
        }
    )

    project_id: UUID
    name: str
    vni: int
    revision: int = Field(description="Of the VPC's routes")


class SubnetCreate(Body):
    """A new subnet. Subnets of one VPC do not overlap; those of different VPCs may."""

    model_config = example({"vpc_id": EXAMPLE_ID, "name": "web", "cidr": "10.0.1.0/24"})

    vpc_id: UUID
    name: Name
    cidr: Annotated[Network, AfterValidator(_subnet)]
    gateway_ip: Address | None = Field(
        None, description="Of the subnet's router: its first address unless one is given"
    )


class SubnetUpdate(Body):
    """What changes; the rest stays."""

    model_config = example({"name": "frontend"})

    name: Name | None = None


class Subnet(Timed):
    """A subnet."""

    model_config = example(
        {
            "id": EXAMPLE_ID,
            "version": 1,
            "created_at": EXAMPLE_TIME,
            "project_id": EXAMPLE_ID,
            "vpc_id": EXAMPLE_ID,
            "name": "web",
            "cidr": "10.0.1.0/24",
            "gateway_ip": "10.0.1.1",
        }
    )

    project_id: UUID
    vpc_id: UUID
    name: str
    cidr: IPv4Network
    gateway_ip: IPv4Address
