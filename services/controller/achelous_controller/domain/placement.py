"""Choosing hosts for instances: the one with the fewest vNICs that has room."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from uuid import UUID

import numpy as np
import numpy.typing as npt

from achelous_controller.domain.layout import Indices


@dataclass(frozen=True, slots=True)
class Room:
    """A host as it stands now. ``vtep``: its underlay address."""

    host_id: UUID
    vtep: IPv4Address
    vnic_count: int
    capacity: int
    revision: int
    """Of its document."""
    draining: bool = False
    """Whether it takes no more."""


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


def assign(hosts: Sequence[Room], vnics: Indices, given: Indices) -> Indices:
    """The host of each of n instances; raises `HostFull` or `NoRoom`.

    Hosts are numbered in their order, the first of equals is chosen. ``vnics``, shape (n,): how
    many each instance has; ``given``, shape (n,): its host, -1 where one is chosen. The given ones
    are served first, so that a choice never takes their room.
    """
    counts = np.array([host.vnic_count for host in hosts], np.int64)
    capacities = np.array([host.capacity for host in hosts], np.int64)
    fixed = given >= 0
    taken = np.bincount(given[fixed], vnics[fixed], len(hosts)).astype(np.int64)
    if (full := counts + taken > capacities).any():
        raise _host_full(hosts, vnics, given, full)
    chosen = given.copy()
    left = np.flatnonzero(~fixed)
    chosen[left] = _choose((counts + taken).tolist(), capacities.tolist(), vnics, left)
    return chosen


def _host_full(
    hosts: Sequence[Room], vnics: Indices, given: Indices, full: npt.NDArray[np.bool]
) -> HostFull:
    """The first instance that its host has no room for."""
    counts = [host.vnic_count for host in hosts]
    for index in np.flatnonzero((given >= 0) & full[given]).tolist():
        host = hosts[given[index]]
        counts[given[index]] += vnics[index]
        if counts[given[index]] > host.capacity:
            return HostFull(index, host)
    raise AssertionError("a host is full without any of those that it was given to")


def _choose(
    counts: list[int], capacities: list[int], vnics: Indices, instances: Indices
) -> list[int]:
    """Hosts for these instances, one after another; the heap holds count * hosts + host."""
    hosts = len(counts)
    heap = sorted(count * hosts + host for host, count in enumerate(counts))
    chosen = []
    for index, wanted in zip(instances.tolist(), vnics[instances].tolist(), strict=True):
        too_full = []
        while heap:
            count, host = divmod(heap[0], hosts)
            if count + wanted <= capacities[host]:
                break
            entry = heapq.heappop(heap)
            if count < capacities[host]:
                too_full.append(entry)
        else:
            raise NoRoom(index, wanted)
        heapq.heapreplace(heap, (count + wanted) * hosts + host)
        for entry in too_full:
            heapq.heappush(heap, entry)
        chosen.append(host)
    return chosen
