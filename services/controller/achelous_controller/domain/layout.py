"""The vNICs of a request as columns: what is said alike of many is looked at once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from achelous_controller.domain.instances import VnicSpec, Wanted

Indices = npt.NDArray[np.intp]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Layout:
    """n instances and their m vNICs, in the order of the request.

    ``lists``: the instances' different lists of vNICs; ``specs``: the specs in these, one list
    after the other. Of each instance, shape (n,): ``list_of``, the index of its list, and
    ``sizes``, its number of vNICs. Of each vNIC, shape (m,): ``spec``, the index of its spec,
    ``owner``, that of its instance, ``position``, its place there.
    """

    wanted: Wanted
    lists: list[tuple[VnicSpec, ...]]
    list_of: Indices
    specs: list[VnicSpec]
    spec: Indices
    owner: Indices
    position: Indices
    sizes: Indices

    @property
    def firsts(self) -> Indices:
        """The first vNIC of each instance."""
        return np.flatnonzero(self.position == 0)

    def path(self, vnic: int) -> str:
        """The path of a vNIC in the request, for errors."""
        return self.wanted.field(int(self.owner[vnic]), f"vnics[{self.position[vnic]}]")

    def field(self, vnic: int, member: str) -> str:
        """The path of a vNIC's member in the request, for errors."""
        return f"{self.path(vnic)}.{member}"


def laid_out(wanted: Wanted) -> Layout:
    """The layout of a request. Instances whose vNICs are one object have them looked at once."""
    lists, which = distinct([each.vnics for each in wanted.specs])
    lengths = np.array([len(some) for some in lists])
    sizes = lengths[which]
    owner, position = spread(sizes)
    starts = np.cumsum(lengths) - lengths
    spec = starts[which][owner] + position
    specs = [spec for some in lists for spec in some]
    return Layout(wanted, lists, which, specs, spec, owner, position, sizes)


def spread(lengths: Indices) -> tuple[Indices, Indices]:
    """Of items that n owners have ``lengths`` of: each one's owner, and its number there."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    return owner, np.arange(len(owner)) - (np.cumsum(lengths) - lengths)[owner]


def distinct(values: Sequence[T]) -> tuple[list[T], Indices]:
    """The different objects of ``values`` in order of their first, and the index of each value.

    Different is what is not the same object: equal ones may be told apart, and none is compared.
    """
    keys = list(map(id, values))
    seen = dict(zip(keys, values, strict=True))
    number = dict(zip(seen, range(len(seen)), strict=True))
    return list(seen.values()), indices(map(number.__getitem__, keys))


def indices(numbers: Iterable[int]) -> Indices:
    """An array of numbers that come one by one."""
    return np.array(list(numbers), np.intp)
