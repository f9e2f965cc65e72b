"""Settings of the gateway, from the environment."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from achelous_shared import names
from achelous_shared.settings import DataplaneSettings


class GatewaySettings(DataplaneSettings):
    """`ACHELOUS_GATEWAY_ID`, `ACHELOUS_ROUTE_CAPACITY` and so on."""

    gateway_id: UUID
    route_capacity: int = Field(default=2_000_000, ge=1, lt=2**31)
    """Routes of all VPCs together; a data plane's maps have that size from their making on."""
    dataplane: Literal["ebpf", "none"] = "ebpf"
    """none: tables and RSP alone, no relay; needs neither root nor eBPF."""
    push: bool = False
    """Whether to send routes unasked to hosts for which packets were relayed."""
    push_interval_s: float = Field(default=1.0, gt=0)
    """Once per destination and host in this time."""
    push_per_window: int = Field(default=256, ge=1, lt=2**32)
    """At most so many per CPU and 100 ms."""
    guest_mtu: int = Field(default=names.GUEST_MTU, ge=576, le=65_535)
    """Largest inner packet, bytes; told to vSwitches in RSP replies."""
