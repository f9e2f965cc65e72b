"""Choosing hosts for instances: the one with the fewest vNICs that has room."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Room:
    """A host as it stands now. ``vtep``: its underlay address."""

    host_id: UUID
    vtep: IPv4Address
    vnic_count: int
    capacity: int


class HostFull(Exception):
    """A host that was given has no room for an instance: the index of it, and the host."""

    def __init__(self, index: int, host: Room) -> None:
        super().__init__(index, host)
        self.index, self.host = index, host


class NoRoom(Exception):
    """No host has room for an instance: the index of it, and how many vNICs it has."""

    def __init__(self, index: int, vnics: int) -> None:
        super().__init__(index, vnics)
        self.index, self.vnics = index, vnics


def assign(hosts: Sequence[Room], vnics: Sequence[int], given: Sequence[UUID | None]) -> list[UUID]:
    """The host of each instance; raises `HostFull` or `NoRoom`.

    ``vnics``: how many each instance has; ``given``: its host, or None where one is chosen. The
    given ones are served first, so that a choice never takes their room.
    """
    counts = {host.host_id: host.vnic_count for host in hosts}
    by_id = {host.host_id: host for host in hosts}
    for index, (host_id, wanted) in enumerate(zip(given, vnics, strict=True)):
        if host_id is not None:
            if counts[host_id] + wanted > by_id[host_id].capacity:
                raise HostFull(index, by_id[host_id])
            counts[host_id] += wanted
    heap = [(count, host_id) for host_id, count in counts.items()]
    heapq.heapify(heap)
    chosen = []
    for index, (host_id, wanted) in enumerate(zip(given, vnics, strict=True)):
        chosen.append(host_id or _choose(heap, by_id, index, wanted))
    return chosen


def _choose(heap: list[tuple[int, UUID]], by_id: dict[UUID, Room], index: int, wanted: int) -> UUID:
    too_full = []
    try:
        while heap:
            count, host_id = heapq.heappop(heap)
            if count + wanted <= by_id[host_id].capacity:
                heapq.heappush(heap, (count + wanted, host_id))
                return host_id
            if count < by_id[host_id].capacity:
                too_full.append((count, host_id))
        raise NoRoom(index, wanted)
    finally:
        for entry in too_full:
            heapq.heappush(heap, entry)
