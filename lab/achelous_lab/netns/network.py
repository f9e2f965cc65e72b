"""All namespaces of one lab: underlay, nodes, cables, guests."""

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from achelous_lab.netns.cables import Cables
from achelous_lab.netns.guest import Guest
from achelous_lab.netns.underlay import Underlay
from achelous_lab.rundir import RunDir


class Network:
    """Namespaces named `<prefix>-...` after the run directory's prefix; all gone at the end."""

    def __init__(self, run_dir: RunDir, cabling: type[Cables] = Cables) -> None:
        self._run_dir = run_dir
        self._stack = AsyncExitStack()
        self.underlay = Underlay(run_dir.prefix)
        self.cables = cabling(run_dir.prefix)
        self.guests: list[Guest] = []

    async def guest(self, name: str) -> Guest:
        """A guest without vNICs, in the namespace `<prefix>-<name>`."""
        logs = self._run_dir.subdir("logs")
        guest = await Guest.create(f"{self._run_dir.prefix}-{name}", logs)
        self.guests.append(guest)
        return guest

    async def remove_guest(self, guest: Guest) -> None:
        await guest.close()
        self.guests.remove(guest)  # not before: one whose end was cut short is ended with the rest

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.underlay)
            await stack.enter_async_context(self.cables)
            stack.push_async_callback(self._remove_guests)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _remove_guests(self) -> None:
        async with AsyncExitStack() as removals:  # all of them, whichever fails
            for guest in reversed(self.guests):
                removals.push_async_callback(self.remove_guest, guest)
