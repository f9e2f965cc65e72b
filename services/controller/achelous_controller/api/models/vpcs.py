"""Bodies about VPCs and subnets."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field

from achelous_controller.api.models.common import (
    EXAMPLE_ID,
    EXAMPLE_TIME,
    Address,
    Address6,
    AnyAddress,
    Body,
    Name,
    Network,
    Network6,
    Timed,
    example,
)
from achelous_controller.domain.networks import check_usable, check_usable6

_MIN_PREFIX = 8
_PREFIXES6 = range(64, 127)
_LEASES_S = (60, 7 * 86_400)
MAX_DNS_SERVERS = 4


Resolvers = Annotated[
    list[AnyAddress],
    Field(max_length=MAX_DNS_SERVERS, description="Resolvers that its guests are told"),
]
Lease = Annotated[
    int,
    Field(ge=_LEASES_S[0], le=_LEASES_S[1], description="Of addresses given by DHCP, seconds"),
]


def _subnet(network: IPv4Network) -> IPv4Network:
    if network.prefixlen < _MIN_PREFIX:
        raise ValueError(f"{network} is too wide: a subnet is a /{_MIN_PREFIX} at most")
    return check_usable(network)


def _subnet6(network: IPv6Network) -> IPv6Network:
    if network.prefixlen not in _PREFIXES6:
        raise ValueError(f"{network} is a /{network.prefixlen}: an IPv6 subnet is a /64 to /126")
    return check_usable6(network)


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
    cidr6: Annotated[Network6, AfterValidator(_subnet6)] | None = Field(
        None, description="Its IPv6 network, a /64 to /126; null: its vNICs have IPv4 alone"
    )
    gateway_ip6: Address6 | None = Field(
        None, description="Of its IPv6 router: the first address of cidr6 unless one is given"
    )
    dns_servers: Resolvers = Field([])
    dhcp_lease_s: Lease = 3600


class SubnetUpdate(Body):
    """What changes; the rest stays."""

    model_config = example({"name": "frontend", "dns_servers": ["10.0.1.1"]})

    name: Name | None = None
    dns_servers: Resolvers | None = None
    dhcp_lease_s: Lease | None = None


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
            "cidr6": "2001:db8:1::/64",
            "gateway_ip6": "2001:db8:1::1",
            "dns_servers": ["10.0.1.1"],
            "dhcp_lease_s": 3600,
        }
    )

    project_id: UUID
    vpc_id: UUID
    name: str
    cidr: IPv4Network
    gateway_ip: IPv4Address
    cidr6: IPv6Network | None
    gateway_ip6: IPv6Address | None
    dns_servers: list[IPv4Address | IPv6Address]
    dhcp_lease_s: int
