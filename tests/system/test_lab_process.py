"""Child processes of the lab: ready or explained, and gone when they should be."""

import signal
from pathlib import Path

import pytest

from achelous_lab.process import CommandFailed, Process, ProcessFailed, run
from achelous_lab.waiting import wait_until


def shell(script: str, log: Path) -> Process:
    return Process("sh", ["sh", "-c", script], log=log, says="ready\n")


async def test_a_process_that_ends_early_is_explained_by_its_last_lines(tmp_path: Path) -> None:
    process = shell("echo disk is full >&2; exit 3", tmp_path / "log")
    with pytest.raises(ProcessFailed, match=r"(?s)status 3 before it was ready.*disk is full"):
        await process.start()


async def test_a_process_that_is_never_ready_is_ended_at_the_deadline(tmp_path: Path) -> None:
    process = shell("echo still waiting; exec sleep 60", tmp_path / "log")
    with pytest.raises(ProcessFailed, match=r"(?s)not ready after 0.2 s.*still waiting"):
        await process.start(timeout=0.2)
    assert not process.running


async def test_one_that_ignores_sigterm_is_killed_with_its_group(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with shell("trap '' TERM; sleep 60 & echo $! ready; wait; wait", log) as process:
        child = int(log.read_text().split()[0])
        await process.stop(timeout=0.2)
        assert process.returncode == -signal.SIGKILL
    await wait_until(lambda: not _runs(child), "the background child to end")


async def test_kill9_and_restart_give_a_new_process_with_the_same_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with shell("echo $$ ready; exec sleep 60", log) as process:
        first = process.pid
        await process.kill9()
        assert process.returncode == -signal.SIGKILL
        await process.start()
        assert process.pid != first
        await process.restart()
    assert process.returncode == -signal.SIGTERM
    assert len(log.read_text().splitlines()) == 3


async def test_a_command_that_fails_says_what_it_wrote() -> None:
    with pytest.raises(CommandFailed, match=r"status 2 from: sh -c .*\nno such thing"):
        await run(["sh", "-c", "echo no such thing >&2; exit 2"], timeout=5)


async def test_a_command_that_takes_too_long_is_ended() -> None:
    with pytest.raises(TimeoutError, match=r"still running after 0.1 s: sleep 60"):
        await run(["sleep", "60"], timeout=0.1)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
