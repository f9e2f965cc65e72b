"""What a keeper of routes needs of its service."""

from typing import Protocol

from achelous_shared.route_following.table import Changes
from achelous_shared.rsp_hash import Hashes


class Sink(Protocol):
    """The data plane, which holds the same routes as the table."""

    async def apply(self, changes: Changes) -> None:
        """Hold these changes too, in slices between which others get their turn."""


class Journal(Protocol):
    """Hears at which revision each VPC's table stands, and what took it there."""

    def begin(self, vni: int, revision: int) -> None:
        """A VPC's table is complete at ``revision``: what happened before is not known."""

    def append(
        self, vni: int, revision: int, hashes: Hashes, now_ns: int, *, gap: int | None = None
    ) -> None:
        """These destinations of a VPC changed on the way to ``revision``.

        ``gap``: from this revision on by a snapshot, which does not tell what came and went.
        """

    def stand_at(self, vni: int, revision: int) -> None:
        """A VPC's table has all up to ``revision``."""

    def forget(self, vni: int) -> None:
        """The VPC is gone."""


class NoJournal:
    """Of who is asked about nothing."""

    def begin(self, vni: int, revision: int) -> None:
        """See Journal."""

    def append(
        self, vni: int, revision: int, hashes: Hashes, now_ns: int, *, gap: int | None = None
    ) -> None:
        """See Journal."""

    def stand_at(self, vni: int, revision: int) -> None:
        """See Journal."""

    def forget(self, vni: int) -> None:
        """See Journal."""
