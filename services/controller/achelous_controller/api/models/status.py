"""Bodies about the platform as a whole."""

from uuid import UUID

from pydantic import BaseModel, Field

from achelous_controller.api.models.common import EXAMPLE_ID, View, example
from achelous_controller.domain.instance_state import InstanceState


class GatewayStatus(View):
    """A gateway as this controller hears it; without a report yet, most is null or 0."""

    gateway_id: UUID
    name: str
    report_age_s: float | None
    live: bool
    serving: bool
    vpcs: int = Field(description="Number of VPCs of which it has a table")


class HostStatus(View):
    """A host as this controller hears it; without a report yet, most is null or 0."""

    host_id: UUID
    name: str
    revision: int = Field(description="Of what it shall run")
    report_age_s: float | None
    live: bool
    applied_revision: int | None = Field(description="Of what it runs")
    fleet_revision: int | None
    waiting: int = Field(description="Number of its vNICs whose device has not appeared")
    failed: dict[UUID, str]
    unheld: list[int] = Field(
        description="VNIs of preprogrammed VPCs with more routes than fit: it learns the rest"
    )


class FleetStatus(View):
    """Gateways and hosts in order of name."""

    revision: int
    gateways: list[GatewayStatus]
    hosts: list[HostStatus]


class Status(BaseModel):
    """How the platform is doing."""

    model_config = example(
        {
            "checks": {"database": "ok", "bus": "ok", "leader": "ok"},
            "instances": {"BUILDING": 0, "ACTIVE": 8, "ERROR": 0, "DELETING": 0},
            "objects": {"projects": 2, "vpcs": 2, "vnics": 8, "hosts": 3, "gateways": 2},
            "fleet": {
                "revision": 5,
                "gateways": [
                    {
                        "gateway_id": EXAMPLE_ID,
                        "name": "g1",
                        "report_age_s": 0.2,
                        "live": True,
                        "serving": True,
                        "vpcs": 2,
                    }
                ],
                "hosts": [],
            },
        }
    )

    checks: dict[str, str] = Field(description="`ok`, or what is wrong")
    instances: dict[InstanceState, int]
    objects: dict[str, int]
    fleet: FleetStatus | None = Field(description="Null while this controller has no bus")
