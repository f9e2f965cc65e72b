"""`achelous loadgen` as its users end it before it is done."""

import asyncio
import json
import signal
from pathlib import Path

import psutil
import pytest
from system.cli.conftest import Cli

pytestmark = pytest.mark.timeout(180)

_S = 120.0


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
async def test_what_was_measured_is_written_when_it_is_cut_short(
    tmp_path: Path, by: signal.Signals, objects: Path
) -> None:
    assert objects.is_dir()  # simulated hosts have their layouts
    file = tmp_path / "figures.json"
    process = await Cli().start(
        "loadgen", "full", "--quick", "--largest", "20", "--json", str(file)
    )
    assert process.stderr is not None
    said = ""
    async with asyncio.timeout(_S):
        while "burst: done" not in said:
            line = await process.stderr.readline()
            assert line, said
            said += line.decode()
        servers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(by)
        process.send_signal(by)  # impatience does no harm
        said += (await process.communicate())[1].decode()

    assert process.returncode == 128 + by, said
    figures = json.loads(file.read_text())
    assert figures["burst"]["instances"] == 500
    assert figures["run"]["failures"][-1] == f"the run was cut short by {by.name}"
    assert f"Not measured: the run was cut short by {by.name}" in said
    assert "Traceback" not in said
    assert servers
    assert not any(server.is_running() for server in servers)
