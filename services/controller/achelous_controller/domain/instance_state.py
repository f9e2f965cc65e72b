"""The life of an instance."""

from enum import StrEnum
from typing import Final


class InstanceState(StrEnum):
    """Stored and shown as its value."""

    BUILDING = "BUILDING"
    """New or moved: not yet run by its host and known to every live gateway."""
    ACTIVE = "ACTIVE"
    """Its host runs it and every live gateway has its routes."""
    ERROR = "ERROR"
    """It did not become ACTIVE in time; its reason says what is missing."""
    DELETING = "DELETING"
    """Withdrawn; its rows go when its host and every live gateway have let go of it."""


TRANSITIONS: Final[dict[InstanceState, frozenset[InstanceState]]] = {
    InstanceState.BUILDING: frozenset(InstanceState),
    InstanceState.ACTIVE: frozenset({InstanceState.BUILDING, InstanceState.DELETING}),
    InstanceState.ERROR: frozenset(
        {InstanceState.BUILDING, InstanceState.ACTIVE, InstanceState.DELETING}
    ),
    InstanceState.DELETING: frozenset(),
}
"""What may follow each state. A new instance is BUILDING, as is one that is given another host,
whatever it was; a DELETING one ends with its rows."""


def may_become(state: InstanceState) -> frozenset[InstanceState]:
    """The states from which ``state`` may be entered."""
    return frozenset(before for before, after in TRANSITIONS.items() if state in after)
