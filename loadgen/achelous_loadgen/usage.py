"""What the processes of the platform take: memory and CPU, sampled now and then."""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import psutil

_EVERY_S: Final = 3.0


class Use(msgspec.Struct):
    """Of one service, its children included. ``cpu``: cores, from begin to end of the run."""

    rss_mb: float = 0.0
    peak_rss_mb: float = 0.0
    cpu: float = 0.0


class Usage:
    """``pids``: asked at each sample, as a process may be started again under another pid."""

    def __init__(self, pids: Callable[[], Mapping[str, int]]) -> None:
        self._pids = pids
        self._begun = time.monotonic()
        self._first: dict[int, float] = {}
        self._seconds: dict[str, dict[int, float]] = {}
        self.services: dict[str, Use] = {}

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            self.sample()
            await asyncio.sleep(_EVERY_S)

    def sample(self) -> None:
        """Look once at all."""
        elapsed = max(time.monotonic() - self._begun, 1e-3)
        children = _children()
        for name, pid in self._pids().items():
            use = self.services.setdefault(name, Use())
            spent = self._seconds.setdefault(name, {})
            try:
                family = _family(psutil.Process(pid), children)
                use.rss_mb = round(sum(_resident(member) for member in family) / 1e6, 1)
                for member in family:
                    times = member.cpu_times()
                    total = times.user + times.system
                    spent[member.pid] = total - self._first.setdefault(member.pid, total)
            except psutil.Error:
                continue  # it has just ended
            use.peak_rss_mb = max(use.peak_rss_mb, use.rss_mb)
            use.cpu = round(sum(spent.values()) / elapsed, 3)

    def cpu_seconds(self) -> dict[str, float]:
        """What each has used until now, since it was first seen."""
        self.sample()
        return {name: sum(spent.values()) for name, spent in self._seconds.items()}

    def spent_since(self, before: Mapping[str, float]) -> dict[str, float]:
        """CPU seconds of each since `cpu_seconds` said ``before``."""
        now = self.cpu_seconds()
        return {name: round(spent - before.get(name, 0.0), 3) for name, spent in now.items()}


def _family(process: psutil.Process, children: Mapping[int, list[int]]) -> list[psutil.Process]:
    """A service and its descendants; this process alone, whose children are the services."""
    family = [process]
    if process.pid != os.getpid():
        for member in family:
            for pid in children.get(member.pid, ()):
                with suppress(psutil.NoSuchProcess):
                    family.append(psutil.Process(pid))
    return family


def _children() -> dict[int, list[int]]:
    """Of each process its children, by one pass over /proc: psutil makes one for each service."""
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has just ended
                stat = (entry / "stat").read_bytes()
                parent = int(stat[stat.rindex(b")") + 1 :].split(None, 2)[1])
                found.setdefault(parent, []).append(int(entry.name))
    return found


def _resident(process: psutil.Process) -> int:
    """Resident bytes that no other process shares: PostgreSQL's buffers count once at most."""
    memory = process.memory_info()
    return int(memory.rss - memory.shared)
