"""Child processes that the lab owns: started, watched, killed and ended by pid, never by name."""

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from achelous_lab.waiting import wait_until

LOG_LINES_SHOWN = 20


class ProcessFailed(RuntimeError):
    """A process ended, or was not ready, when it should have been serving."""

    def __init__(self, name: str, argv: Sequence[str], what: str, log: Path) -> None:
        self.name, self.log = name, log
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        tail = "\n".join(f"    {line}" for line in lines) or "    (it wrote nothing)"
        super().__init__(f"{name} {what}: {' '.join(argv)}\nlast lines of {log}:\n{tail}")


async def _started() -> bool:
    return True


class CommandFailed(RuntimeError):
    """A command ended with another status than 0."""

    def __init__(self, argv: Sequence[str | Path], status: int, stderr: bytes) -> None:
        self.status, self.stderr = status, stderr.decode(errors="replace").strip()
        command = " ".join(str(part) for part in argv)
        super().__init__(f"status {status} from: {command}\n{self.stderr}")


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended."""

    status: int
    stdout: bytes
    stderr: bytes


async def run(
    argv: Sequence[str | Path], *, timeout: float, netns: str | None = None, check: bool = True
) -> Completed:
    """Run a command to its end, in a network namespace if one is named.

    Raises CommandFailed when `check` and its status is not 0, and TimeoutError after `timeout`
    seconds; the command has ended then as well.
    """
    child = await asyncio.create_subprocess_exec(
        *_owned(argv, netns, signal.SIGKILL),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout):
            stdout, stderr = await child.communicate()
    except TimeoutError:
        command = " ".join(str(part) for part in argv)
        raise TimeoutError(f"still running after {timeout:g} s: {command}") from None
    finally:
        if child.returncode is None:
            await _kill_group(child)
    assert child.returncode is not None  # noqa: S101  communicate() has waited for it
    if check and child.returncode != 0:
        raise CommandFailed(argv, child.returncode, stderr)
    return Completed(child.returncode, stdout, stderr)


def _owned(argv: Sequence[str | Path], netns: str | None, death: signal.Signals) -> list[str]:
    """The command to exec: it gets `death` when this process dies, and lives in the namespace.

    By execs, not by a preexec function: safe whatever threads and event loop this process has,
    and the pid stays the command's own. Should this process be dead before the kernel knew that
    the child is to die with it, the shell sees another parent and gives up.
    """
    dies_with_us = ["setpriv", "--pdeathsig", death.name.removeprefix("SIG"), "--"]
    dies_with_us += ["sh", "-c", 'test "$PPID" = "$0" && exec "$@"', str(os.getpid())]
    enter = ["nsenter", f"--net=/run/netns/{netns}", "--"] if netns else []
    return [*dies_with_us, *enter, *(str(part) for part in argv)]


class Process:
    """A child in a session of its own, with a log file, that dies when the lab dies.

    `netns` names the network namespace that it runs in. It is ready when its output contains
    `says` and `ready` returns True; that is asked every 20 ms until the child ends or the deadline
    passes.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        netns: str | None = None,
        says: str = "",
        ready: Callable[[], Awaitable[bool]] = _started,
        stop_signal: signal.Signals = signal.SIGTERM,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.name = name
        self.argv = [str(part) for part in argv]
        self.log = log
        self._env = {**os.environ, **(env or {})}
        self._netns = netns
        self._says = says
        self._ready = ready
        self._stop_signal = stop_signal
        self._death_signal = death_signal
        self._child: asyncio.subprocess.Process | None = None
        self._log_start = 0

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.returncode is None

    @property
    def pid(self) -> int:
        """The process itself, not a wrapper: setpriv and nsenter replace themselves by it."""
        if self._child is None:
            raise RuntimeError(f"{self.name} was never started: it has no pid")
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        """As in `subprocess`: None while it runs, -9 after kill -9."""
        return self._child.returncode if self._child else None

    def output(self) -> str:
        """What it has written since its last start."""
        return self.log.read_bytes()[self._log_start :].decode(errors="replace")

    async def start(self, timeout: float = 15.0) -> Self:
        """Start and wait until ready. Raises ProcessFailed with the log's last lines."""
        if self.running:
            raise RuntimeError(f"{self.name} runs already, as pid {self.pid}")
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._child = await asyncio.create_subprocess_exec(
                *_owned(self.argv, self._netns, self._death_signal),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                env=self._env, start_new_session=True,
            )  # fmt: skip
        try:
            await wait_until(self._ready_or_gone, "readiness", timeout=timeout)
        except TimeoutError:
            await self.stop(timeout=1)
            raise self._failure(f"was not ready after {timeout:g} s") from None
        except BaseException:
            await self.stop(timeout=1)
            raise
        return self

    async def _ready_or_gone(self) -> bool:
        if not self.running:
            raise self._failure(f"ended with status {self.returncode} before it was ready")
        return self._says in self.output() and await self._ready()

    def _failure(self, what: str) -> ProcessFailed:
        return ProcessFailed(self.name, self.argv, what, self.log)

    async def wait(self, timeout: float) -> int:
        """The exit status, once it has ended by itself. Raises ProcessFailed when it runs on."""
        assert self._child is not None  # noqa: S101  start() comes first
        try:
            return await asyncio.wait_for(self._child.wait(), timeout)
        except TimeoutError:
            raise self._failure(f"still ran after {timeout:g} s") from None

    def send_signal(self, number: signal.Signals) -> None:
        """To the process itself, if it runs: SIGSTOP and SIGCONT, to hang it for a while."""
        if self.running and self._child is not None:
            _signal(self._child, number)

    async def stop(self, timeout: float = 8.0) -> None:
        """Ask it to end; SIGKILL for its whole process group when it does not in time."""
        if not self.running or self._child is None:
            return
        _signal(self._child, self._stop_signal)
        try:
            await asyncio.wait_for(self._child.wait(), timeout)
        except (TimeoutError, asyncio.CancelledError):
            await _kill_group(self._child)
            raise_if_cancelled()

    async def kill9(self, timeout: float = 5.0) -> None:
        """SIGKILL, as a crash; returns when it and the processes that it had started are gone."""
        if not self.running or self._child is None:
            return
        workers = _Pids(_children(self.pid))
        with workers:
            _signal(self._child, signal.SIGKILL)
            await self._child.wait()
            await wait_until(workers.gone, f"{self.name}'s children to end", timeout=timeout)

    async def restart(self, timeout: float = 15.0) -> None:
        await self.stop()
        await self.start(timeout)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self.stop()


def _signal(child: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """To a child that may just have ended. Not by its own method, which looks for its exit status
    first and takes it from the event loop, which then reports 255."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, number)


async def _kill_group(child: asyncio.subprocess.Process) -> None:
    """A child that may just have ended, and all that it had started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    await child.wait()


def raise_if_cancelled() -> None:
    """Go on with a cancellation that was held up for a clean end."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class _Pids:
    """Processes held by pidfd, so that a pid used again is not taken for them."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._fds: list[int] = []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                self._fds.append(os.pidfd_open(pid))

    def gone(self) -> bool:
        """True when all have ended (a pidfd is readable from then on, reaped or not)."""
        poll = select.poll()
        for fd in self._fds:
            poll.register(fd, select.POLLIN)
        return len(poll.poll(0)) == len(self._fds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._fds:
            os.close(fd)
