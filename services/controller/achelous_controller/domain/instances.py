"""Instances as they are asked for and as they are made: structs, as they come by the thousand."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from uuid import UUID

import msgspec

from achelous_controller.domain.instance_state import InstanceState

MAX_BATCH: Final = 20_000
"""Instances of one call."""

MAX_VNICS: Final = 8
"""Of one instance."""

MAC_PREFIX: Final = 0x02 << 40
"""Locally administered, unicast; the lower 40 bits come from a sequence."""


class Kind(StrEnum):
    """What runs as the instance; the network treats all alike."""

    VM = "vm"
    BARE_METAL = "bare_metal"
    CONTAINER = "container"


class VnicSpec(msgspec.Struct, frozen=True):
    """A vNIC that is asked for."""

    subnet_id: UUID
    ip: IPv4Address | None
    ip6: IPv6Address | None
    security_group_ids: tuple[UUID, ...]
    """None given: the VPC's default group."""


class InstanceSpec(msgspec.Struct, frozen=True):
    """An instance that is asked for."""

    name: str
    kind: Kind
    project_id: UUID | None
    host_id: UUID | None
    vnics: tuple[VnicSpec, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Instances that are asked for together. ``accepted``: when each was asked for.

    ``path``: where one stands in its request, as a format of its index; ends in a dot, or is "".
    """

    specs: Sequence[InstanceSpec]
    accepted: Sequence[datetime]
    path: str

    def field(self, index: int, member: str) -> str:
        """The path of an instance's member, for errors."""
        return self.path.format(index) + member


class Vnic(msgspec.Struct, frozen=True):
    """A vNIC as it is stored. ``mac``: 48 bits."""

    id: UUID
    project_id: UUID
    instance_id: UUID
    vpc_id: UUID
    subnet_id: UUID
    host_id: UUID
    position: int
    ip: IPv4Address
    ip6: IPv6Address | None
    mac: int
    security_group_ids: tuple[UUID, ...]
    version: int


class Instance(msgspec.Struct, frozen=True):
    """An instance as it is stored, with its vNICs in order of position."""

    id: UUID
    project_id: UUID
    name: str
    kind: Kind
    host_id: UUID
    state: InstanceState
    reason: str | None
    accepted_at: datetime
    committed_at: datetime | None
    published_at: datetime | None
    gateways_applied_at: datetime | None
    host_applied_at: datetime | None
    active_at: datetime | None
    created_at: datetime
    version: int
    vnics: tuple[Vnic, ...]
