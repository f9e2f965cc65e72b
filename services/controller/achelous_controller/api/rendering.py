"""Instances and vNICs as JSON: what `models.instances` describes, written without its checks."""

from collections.abc import Iterable
from datetime import datetime
from socket import inet_ntoa
from typing import Final
from uuid import UUID

import msgspec

from achelous_controller.domain import instances as domain
from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.domain.instances import Kind
from achelous_shared.routes import mac_of


class VnicView(msgspec.Struct):
    """`models.instances.Vnic`."""

    id: UUID
    version: int
    project_id: UUID
    instance_id: UUID
    vpc_id: UUID
    subnet_id: UUID
    position: int
    ip: str
    ip6: str | None
    mac: str
    security_group_ids: tuple[UUID, ...]


class InstanceView(msgspec.Struct):
    """`models.instances.Instance`."""

    id: UUID
    version: int
    created_at: datetime
    project_id: UUID
    name: str
    kind: Kind
    host_id: UUID | None
    state: InstanceState
    reason: str | None
    accepted_at: datetime
    committed_at: datetime | None
    published_at: datetime | None
    gateways_applied_at: datetime | None
    host_applied_at: datetime | None
    active_at: datetime | None
    vnics: list[VnicView]


class BatchView(msgspec.Struct):
    """`models.instances.Batch`."""

    instances: list[InstanceView]


class PageView(msgspec.Struct):
    """`models.common.Page` of either."""

    items: list[InstanceView] | list[VnicView]
    next: str | None


_encoder: Final = msgspec.json.Encoder()


def json_of(view: VnicView | InstanceView | BatchView | PageView) -> bytes:
    """The view as a body."""
    return _encoder.encode(view)


def vnic_view(vnic: domain.Vnic) -> VnicView:
    """What everybody may see of a vNIC."""
    return VnicView(
        vnic.id,
        vnic.version,
        vnic.project_id,
        vnic.instance_id,
        vnic.vpc_id,
        vnic.subnet_id,
        vnic.position,
        inet_ntoa(vnic.ip.packed),  # a quarter of what its own text costs
        None if vnic.ip6 is None else str(vnic.ip6),
        mac_of(vnic.mac.to_bytes(6)),
        vnic.security_group_ids,
    )


def instance_view(instance: domain.Instance, *, show_host: bool) -> InstanceView:
    """An instance; ``show_host``: to an operator."""
    return InstanceView(
        instance.id,
        instance.version,
        instance.created_at,
        instance.project_id,
        instance.name,
        instance.kind,
        instance.host_id if show_host else None,
        instance.state,
        instance.reason,
        instance.accepted_at,
        instance.committed_at,
        instance.published_at,
        instance.gateways_applied_at,
        instance.host_applied_at,
        instance.active_at,
        [vnic_view(vnic) for vnic in instance.vnics],
    )


def batch_view(instances: Iterable[domain.Instance], *, show_host: bool) -> BatchView:
    """Instances in their order."""
    return BatchView([instance_view(one, show_host=show_host) for one in instances])
