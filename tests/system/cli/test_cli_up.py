"""`achelous up` as its users run it: what it says, and how it ends."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from system.cli.conftest import Cli

pytestmark = pytest.mark.kernel

_UP_S = 60


@dataclass(frozen=True, slots=True)
class Up:
    """A platform that is up, and where its places are."""

    process: asyncio.subprocess.Process
    places: dict[str, Any]

    async def end(self, by: signal.Signals) -> tuple[int | None, str]:
        """Its exit code and what it said on standard error."""
        self.process.send_signal(by)
        async with asyncio.timeout(_UP_S):
            _, err = await self.process.communicate()
        return self.process.returncode, err.decode()


@asynccontextmanager
async def up(state: Path, *args: str) -> AsyncIterator[Up]:
    """`achelous up`, once it has said where things are; ended if the test has not ended it."""
    process = await Cli({"XDG_STATE_HOME": str(state)}).start("up", "--json", *args)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(_UP_S):
            line = await process.stdout.readline()
        assert line, (await process.communicate())[1].decode()
        yield Up(process, json.loads(line))
    finally:
        if process.returncode is None:
            process.terminate()
            async with asyncio.timeout(_UP_S):
                await process.communicate()


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
async def test_it_has_guests_until_it_is_told_to_end(tmp_path: Path, by: signal.Signals) -> None:
    async with up(tmp_path, "--hosts", "1", "--gateways", "1") as platform:
        places = platform.places
        found = await Cli({"XDG_STATE_HOME": str(tmp_path)}).json("instance", "list")
        assert [item["state"] for item in found["items"]] == ["ACTIVE", "ACTIVE"]
        assert all(Path("/run/netns", guest).exists() for guest in places["guests"])
        code, said = await platform.end(by)

    assert code == 0, said
    assert len(places["guests"]) == 2
    assert not Path(places["run_dir"]).exists()
    assert not any(Path("/run/netns", guest).exists() for guest in places["guests"])


@pytest.mark.parametrize("size", [("--hosts", "0"), ("--gateways", "0")])
async def test_without_hosts_or_gateways_there_are_no_guests(
    tmp_path: Path, size: tuple[str, str]
) -> None:
    async with up(tmp_path, *size) as platform:
        assert platform.places["guests"] == {}
        code, said = await platform.end(signal.SIGTERM)

    assert code == 0, said
    assert "There is no sample VPC: its guests would need a host and a gateway." in said


async def test_without_the_sample_nothing_is_said_of_it(tmp_path: Path) -> None:
    async with up(tmp_path, "--hosts", "0", "--no-sample") as platform:
        _, said = await platform.end(signal.SIGTERM)

    assert "sample" not in said


async def test_of_servers_that_do_not_answer_it_is_told_at_once(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        port = taken.getsockname()[1]
        dsn, nats = (
            f"postgresql+asyncpg://u:secret@127.0.0.1:{port}/x",
            f"nats://u:p@127.0.0.1:{port}",
        )
        process = await Cli({"XDG_STATE_HOME": str(tmp_path)}).start(
            "up", "--dsn", dsn, "--nats", nats
        )
        assert process.stderr is not None
        said = ""
        async with asyncio.timeout(_UP_S):
            while said.count("cannot be reached") < 2:
                line = await process.stderr.readline()
                assert line, said
                said += line.decode()
        process.terminate()
        async with asyncio.timeout(_UP_S):
            await process.communicate()

    assert f"The database at 127.0.0.1:{port} cannot be reached, waiting for it: " in said
    assert f"The bus at 127.0.0.1:{port} cannot be reached, waiting for it: " in said
    assert "secret" not in said


async def test_it_stays_up_where_it_can_not_be_announced(tmp_path: Path) -> None:
    state = tmp_path / "file"
    state.touch()  # where a folder would have to be

    async with up(state, "--hosts", "0", "--gateways", "0") as platform:
        cli = Cli({"ACHELOUS_TOKEN_FILE": platform.places["token_file"]})
        await cli.json("--url", platform.places["url"], "status")
        code, said = await platform.end(signal.SIGTERM)

    assert code == 0, said
    assert "find it by --url and --token-file only" in said
    assert "Traceback" not in said


async def test_the_load_generator_joins_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    cli, file = Cli({"XDG_STATE_HOME": str(tmp_path)}), tmp_path / "figures.json"
    async with up(tmp_path, "--hosts", "1", "--gateways", "1"):
        before = await cli.json("instance", "list")
        small = ("--quick", "--largest", "10", "--rate", "10", "--seconds", "2")
        said = await cli("loadgen", "churn", *small, "--attach", "--json", str(file))
        left = [await cli.json(kind, "list") for kind in ("host", "project", "vpc", "instance")]

    assert said.code == 0, said.err
    figures = json.loads(file.read_text())
    assert figures["run"]["attached"]
    assert figures["churn"]["lost"] == figures["churn"]["refused"] == 0
    assert [len(page["items"]) for page in left] == [1, 1, 1, len(before["items"])]
