"""As of which revision of each VPC the entries of the cache are true.

The invariant: every entry held of a VPC is as the VPC's routes were at its view's revision or at a
later one. So whatever makes an entry wrong is among the changes after that revision. An entry
learned from a gateway that lags takes the view back to what that gateway knew.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(slots=True)
class View:
    """One VPC, of which ``entries`` are held or known not to be there.

    Times: nanoseconds of CLOCK_MONOTONIC.
    """

    revision: int
    entries: int = 0
    lowest: int | None = None
    """As of which an entry came, the lowest since `Views.begin`."""
    confirmed_ns: int = 0
    """A gateway that was asked then has named all changes up to ``revision``."""
    behind_since_ns: int | None = None
    """Since then every gateway that answers knows only older revisions."""


class Views:
    """The views of all VPCs of which something is held, by VNI."""

    def __init__(self) -> None:
        self._views: dict[int, View] = {}

    def __len__(self) -> int:
        return len(self._views)

    def __iter__(self) -> Iterator[int]:
        return iter(self._views)

    def get(self, vni: int) -> View | None:
        """The view of a VPC, or None if nothing of it is held."""
        return self._views.get(vni)

    def enter(self, vni: int, as_of: int) -> None:
        """An entry of a VPC was written, true as of ``as_of``; 0: nobody knows."""
        view = self._views.get(vni)
        if view is None:
            view = self._views[vni] = View(as_of)
        view.entries += 1
        view.revision = min(view.revision, as_of)
        view.lowest = as_of if view.lowest is None else min(view.lowest, as_of)

    def leave(self, vni: int) -> None:
        """An entry went."""
        view = self._views[vni]
        view.entries -= 1
        if not view.entries:
            del self._views[vni]

    def begin(self, vnis: Iterable[int]) -> dict[int, int]:
        """The revision after which changes of these are to be asked for, by VNI."""
        found = {vni: view for vni in vnis if (view := self._views.get(vni)) is not None}
        for view in found.values():
            view.lowest = None
        return {vni: view.revision for vni, view in found.items()}

    def advance(self, vni: int, revision: int, asked_ns: int) -> None:
        """All changes up to ``revision`` have been acted on, but for what came since `begin`."""
        view = self._views.get(vni)
        if view is not None:
            view.revision = revision if view.lowest is None else min(revision, view.lowest)
            view.confirmed_ns = asked_ns
            view.behind_since_ns = None
