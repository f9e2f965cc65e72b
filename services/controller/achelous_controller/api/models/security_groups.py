"""Bodies about security groups and their rules."""

from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Self
from uuid import UUID

from pydantic import AfterValidator, Field, model_validator

from achelous_controller.api.models.common import (
    EXAMPLE_ID,
    EXAMPLE_TIME,
    AnyNetwork,
    Body,
    Name,
    Timed,
    example,
)
from achelous_controller.domain import rules
from achelous_controller.domain.networks import check_remote
from achelous_controller.store.database import Record


class Direction(StrEnum):
    """As seen from the vNIC."""

    INGRESS = "ingress"
    EGRESS = "egress"


class NamedProtocol(StrEnum):
    """Protocols that need no number."""

    ANY = "any"
    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"


Number = Annotated[int, Field(ge=1, le=255, description="A protocol of IANA's registry")]
PortNumber = Annotated[int, Field(ge=0, le=rules.PORT_MAX)]

_EXAMPLE_RULE = {
    "id": EXAMPLE_ID,
    "version": 1,
    "created_at": EXAMPLE_TIME,
    "direction": "ingress",
    "protocol": "tcp",
    "port_min": 443,
    "port_max": 443,
    "remote": "0.0.0.0/0",
}


def _shown(protocol: int) -> NamedProtocol | int:
    name = rules.protocol_name(protocol)
    return NamedProtocol(name) if isinstance(name, str) else name


class RuleCreate(Body):
    """What to allow; what no rule allows is denied. Replies to what was allowed always pass."""

    model_config = example(
        {"direction": "ingress", "protocol": "tcp", "port_min": 443, "remote": "0.0.0.0/0"}
    )

    direction: Direction
    protocol: NamedProtocol | Number = NamedProtocol.ANY
    port_min: PortNumber | None = Field(
        None, description="Of the destination; alone it is the one port; tcp and udp only"
    )
    port_max: PortNumber | None = None
    remote: Annotated[AnyNetwork, AfterValidator(check_remote)] = Field(
        rules.EVERYWHERE, description="The other end: the sender of ingress, the target of egress"
    )

    @model_validator(mode="after")
    def _ports_fit(self) -> Self:
        self.rule()
        return self

    def rule(self) -> rules.Rule:
        """The rule in the numbers that are stored; raises ValueError."""
        protocol = rules.protocol_number(self.protocol)
        port_min, port_max = rules.ports(protocol, self.port_min, self.port_max)
        egress = self.direction is Direction.EGRESS
        return rules.Rule(egress, protocol, port_min, port_max, self.remote)


class SecurityRule(Timed):
    """A rule of a security group. Ports are null where the protocol has none."""

    model_config = example(_EXAMPLE_RULE)

    direction: Direction
    protocol: NamedProtocol | Number
    port_min: int | None
    port_max: int | None
    remote: IPv4Network | IPv6Network

    @classmethod
    def of(cls, row: Record) -> Self:
        ports = rules.has_ports(row.protocol)
        return cls(
            id=row.id,
            version=1,  # a rule never changes
            created_at=row.created_at,
            direction=Direction.EGRESS if row.egress else Direction.INGRESS,
            protocol=_shown(row.protocol),
            port_min=row.port_min if ports else None,
            port_max=row.port_max if ports else None,
            remote=row.remote,
        )


class SecurityGroupCreate(Body):
    """A new group; it begins with two rules that allow everything out, one of each family."""

    model_config = example({"vpc_id": EXAMPLE_ID, "name": "web"})

    vpc_id: UUID
    name: Name


class SecurityGroupUpdate(Body):
    """What changes; the rest stays."""

    model_config = example({"name": "frontend"})

    name: Name | None = None


class SecurityGroup(Timed):
    """A security group with its rules."""

    model_config = example(
        {
            "id": EXAMPLE_ID,
            "version": 2,
            "created_at": EXAMPLE_TIME,
            "project_id": EXAMPLE_ID,
            "vpc_id": EXAMPLE_ID,
            "name": "web",
            "rules": [_EXAMPLE_RULE],
        }
    )

    project_id: UUID
    vpc_id: UUID
    name: str
    rules: list[SecurityRule]

    @classmethod
    def of(cls, row: Record, rows: list[Record]) -> Self:
        return cls(
            id=row.id,
            version=row.version,
            created_at=row.created_at,
            project_id=row.project_id,
            vpc_id=row.vpc_id,
            name=row.name,
            rules=[SecurityRule.of(rule) for rule in rows],
        )
