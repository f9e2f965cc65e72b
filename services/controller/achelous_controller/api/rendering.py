"""Instances and vNICs as JSON: what `models.instances` describes, written without its checks."""

from collections.abc import Sequence
from datetime import datetime
from socket import AF_INET6, inet_ntoa, inet_ntop
from typing import Final
from uuid import UUID

import msgspec
import numpy as np
import numpy.typing as npt

from achelous_controller.domain import instances as domain
from achelous_controller.domain.ids import digits, texts
from achelous_controller.domain.instance_state import InstanceState
from achelous_controller.domain.instances import Kind
from achelous_controller.store.allocation import Addresses
from achelous_controller.store.bulk import slices
from achelous_controller.store.provisioning import Made
from achelous_shared.routes import mac_of


class VnicView(msgspec.Struct):
    """`models.instances.Vnic`."""

    id: UUID | str
    version: int
    project_id: UUID
    instance_id: UUID | str
    vpc_id: UUID
    subnet_id: UUID
    position: int
    ip: str
    ip6: str | None
    mac: str
    security_group_ids: tuple[UUID, ...]


class InstanceView(msgspec.Struct):
    """`models.instances.Instance`."""

    id: UUID | str
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


def made_views(made: Made, *, show_host: bool) -> list[InstanceView]:
    """New instances in their order; ``show_host``: to an operator."""
    layout = made.layout
    ids = texts(made.ids)
    vnics = _made_vnics(made, ids)
    ends = (np.flatnonzero(layout.position == 0) + layout.sizes).tolist()
    owners = [made.places[place].subnet.project_id for place in made.place[layout.firsts].tolist()]
    hosts = [room.host_id if show_host else None for room in made.rooms]
    return [
        InstanceView(
            instance_id, 1, made.created_at, project_id, spec.name, spec.kind, hosts[room],
            InstanceState.BUILDING, None, accepted_at, made.created_at, None, None, None, None,
            vnics[end - len(spec.vnics) : end],
        )
        for instance_id, project_id, spec, room, accepted_at, end in zip(
            ids, owners, layout.wanted.specs, made.room.tolist(), layout.wanted.accepted, ends,
            strict=True,
        )
    ]  # fmt: skip


def _made_vnics(made: Made, instance_ids: Sequence[str]) -> list[VnicView]:
    places = [(p.subnet.project_id, p.vpc.id, p.subnet.id, p.groups) for p in made.places]
    macs = made.macs.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 2:]
    found = []
    for vnic_id, owner, position, place, ip, ip6, mac in zip(
        texts(made.vnic_ids),
        made.layout.owner.tolist(),
        made.layout.position.tolist(),
        made.place.tolist(),
        _ips(made.ip),
        _ips6(made.ip6),
        _macs(macs),
        strict=True,
    ):
        project_id, vpc_id, subnet_id, groups = places[place]
        found.append(
            VnicView(
                vnic_id, 1, project_id, instance_ids[owner], vpc_id, subnet_id, position, ip, ip6,
                mac, groups,
            )
        )  # fmt: skip
    return found


def _ips(addresses: Addresses) -> list[str]:
    return [inet_ntoa(each) for each in slices(addresses.keys[:, 12:].tobytes(), 4)]


def _ips6(addresses: Addresses) -> list[str | None]:
    if not addresses.present.any():
        return [None] * len(addresses.present)
    return [
        inet_ntop(AF_INET6, each) if there else None
        for each, there in zip(
            slices(addresses.keys.tobytes(), 16), addresses.present.tolist(), strict=True
        )
    ]


def _macs(macs: npt.NDArray[np.uint8]) -> list[str]:
    """Of bytes (n, 6)."""
    written = np.full((len(macs), 6, 3), ord(":"), np.uint8)
    written[:, :, :2] = digits(macs).reshape(-1, 6, 2)
    text = written.tobytes().decode()
    return [text[start : start + 17] for start in range(0, len(text), 18)]
