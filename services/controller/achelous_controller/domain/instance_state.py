"""The life of an instance."""

from enum import StrEnum
from typing import Final


class InstanceState(StrEnum):
    """Stored and shown as its value."""

    BUILDING = "BUILDING"
    """Accepted; not yet run by its host and known to every live gateway."""
    ACTIVE = "ACTIVE"
    """Its host runs it and every live gateway has its routes."""
    ERROR = "ERROR"
    """It did not become ACTIVE in time; its reason says what is missing."""
    DELETING = "DELETING"
    """Withdrawn; its rows go when its host and every live gateway have let go of it."""


TRANSITIONS: Final[dict[InstanceState, frozenset[InstanceState]]] = {
    InstanceState.BUILDING: frozenset(
        {InstanceState.ACTIVE, InstanceState.ERROR, InstanceState.DELETING}
    ),
    InstanceState.ACTIVE: frozenset({InstanceState.DELETING}),
    InstanceState.ERROR: frozenset({InstanceState.ACTIVE, InstanceState.DELETING}),
    InstanceState.DELETING: frozenset(),
}
"""What may follow each state. A new instance is BUILDING; a DELETING one ends with its rows."""


def may_become(state: InstanceState) -> frozenset[InstanceState]:
    """The states from which ``state`` may be entered."""
    return frozenset(before for before, after in TRANSITIONS.items() if state in after)
