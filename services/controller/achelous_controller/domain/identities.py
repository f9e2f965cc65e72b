"""Identities: numbers that stand for sets of security groups within a VPC.

A set needs one if a rule names a group of it: then the packets of its members say the number, and a
rule that names the group costs a host as much as there are such sets, not as there are members.
"""

from collections.abc import Iterable
from typing import Final
from uuid import UUID

Groups = tuple[UUID, ...]
"""A set of security groups, ascending."""

NONE: Final = 0
"""Of those in no group that a rule names."""

HIGHEST: Final = 0xFFFF
"""16 bits travel."""

MAX_IDENTITIES: Final = 4096
"""Of one VPC at a time: as many can a host tell apart in one rule set. The others may rest."""


def groups_of(groups: Iterable[UUID]) -> Groups:
    """The set in its one order."""
    return tuple(sorted(set(groups)))


def next_free(after: int, used: set[int], count: int) -> list[int]:
    """``count`` numbers that are not ``used``, going round from ``after`` on: one that was given up
    comes back as late as can be. There must be as many."""
    found: list[int] = []
    number = after
    while len(found) < count:
        number = number % HIGHEST + 1
        if number not in used:
            found.append(number)
    return found
