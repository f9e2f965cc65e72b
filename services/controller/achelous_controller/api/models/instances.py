"""Bodies about instances and vNICs."""

from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Self
from uuid import UUID

from pydantic import AfterValidator, Field, model_validator

from achelous_controller.api.models.common import (
    EXAMPLE_ID,
    EXAMPLE_TIME,
    Address,
    Address6,
    Body,
    Name,
    Resource,
    Timed,
    View,
    example,
)
from achelous_controller.domain import instances as domain
from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.domain.instances import MAX_BATCH, MAX_VNICS, Kind
from achelous_controller.domain.rules import MAX_GROUPS

_EXAMPLE_SPEC = {"name": "web-1", "kind": "vm", "vnics": [{"subnet_id": EXAMPLE_ID}]}
_EXAMPLE_VNIC = {
    "id": EXAMPLE_ID,
    "version": 1,
    "project_id": EXAMPLE_ID,
    "instance_id": EXAMPLE_ID,
    "vpc_id": EXAMPLE_ID,
    "subnet_id": EXAMPLE_ID,
    "position": 0,
    "ip": "10.0.1.7",
    "ip6": "2001:db8:1::7",
    "mac": "02:00:00:00:00:01",
    "security_group_ids": [EXAMPLE_ID],
}
_EXAMPLE = {
    "id": EXAMPLE_ID,
    "version": 2,
    "created_at": EXAMPLE_TIME,
    "project_id": EXAMPLE_ID,
    "name": "web-1",
    "kind": "vm",
    "host_id": None,
    "state": "ACTIVE",
    "reason": None,
    "accepted_at": EXAMPLE_TIME,
    "committed_at": EXAMPLE_TIME,
    "published_at": EXAMPLE_TIME,
    "gateways_applied_at": EXAMPLE_TIME,
    "host_applied_at": EXAMPLE_TIME,
    "active_at": EXAMPLE_TIME,
    "vnics": [_EXAMPLE_VNIC],
}


def _distinct(ids: tuple[UUID, ...]) -> tuple[UUID, ...]:
    if len(set(ids)) != len(ids):
        raise ValueError("a security group is named twice")
    return ids


GroupIds = Annotated[
    tuple[UUID, ...],
    AfterValidator(_distinct),
    Field(max_length=MAX_GROUPS, json_schema_extra={"uniqueItems": True}),
]


class VnicCreate(Body):
    """A vNIC of a new instance."""

    subnet_id: UUID
    ip: Address | None = Field(
        None, description="A free address of the subnet; null: one is chosen"
    )
    ip6: Address6 | None = Field(
        None,
        description="A free IPv6 address of the subnet; null: one is chosen if it has cidr6",
    )
    security_group_ids: GroupIds = Field((), description="None: the VPC's group named default")


class InstanceCreate(Body):
    """A new instance."""

    model_config = example(_EXAMPLE_SPEC)

    name: Name
    kind: Kind = Kind.VM
    vnics: list[VnicCreate] = Field(min_length=1, max_length=MAX_VNICS)
    project_id: UUID | None = Field(None, description="If given, it has to be the subnets' own")
    host_id: UUID | None = Field(None, description="Operators only; null: one is chosen")

    def spec(self) -> domain.InstanceSpec:
        """The domain's form."""
        return domain.InstanceSpec(
            self.name,
            self.kind,
            self.project_id,
            self.host_id,
            tuple(
                domain.VnicSpec(v.subnet_id, v.ip, v.ip6, v.security_group_ids) for v in self.vnics
            ),
        )


class BatchCreate(Body):
    """New instances, all or none of them."""

    model_config = example({"instances": [_EXAMPLE_SPEC]})

    instances: list[InstanceCreate] = Field(min_length=1, max_length=MAX_BATCH)


class InstanceUpdate(Body):
    """What changes; the rest stays."""

    model_config = example({"name": "web-1-old"})

    name: Name | None = None
    host_id: UUID | None = Field(
        None,
        description="Operators only, and not with a name: the host that it moves to; the one where"
        " it is changes nothing",
    )

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if None not in (self.name, self.host_id):
            raise ValueError("name and host_id are changed one at a time")
        return self


class VnicUpdate(Body):
    """The groups that the vNIC is in from now on."""

    model_config = example({"security_group_ids": [EXAMPLE_ID]})

    security_group_ids: Annotated[GroupIds, Field(min_length=1)]


class Vnic(Resource):
    """A vNIC."""

    model_config = example(_EXAMPLE_VNIC)

    project_id: UUID
    instance_id: UUID
    vpc_id: UUID
    subnet_id: UUID
    position: int = Field(description="0 is the instance's first")
    ip: IPv4Address
    ip6: IPv6Address | None = Field(description="null: its subnet has no cidr6")
    mac: str
    security_group_ids: tuple[UUID, ...]


class Instance(Timed):
    """An instance, with the time at which each stage of its last change was done."""

    model_config = example(_EXAMPLE)

    project_id: UUID
    name: str
    kind: Kind
    host_id: UUID | None = Field(description="Shown to operators; null to a project")
    state: InstanceState
    reason: str | None = Field(description="Why it is in ERROR")
    accepted_at: datetime
    committed_at: datetime | None
    published_at: datetime | None
    gateways_applied_at: datetime | None
    host_applied_at: datetime | None
    active_at: datetime | None
    vnics: list[Vnic]


class Batch(View):
    """The instances that were made, in the order of the request."""

    model_config = example({"instances": [_EXAMPLE]})

    instances: list[Instance]
