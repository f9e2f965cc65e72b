"""The `achelous` command as its users run it: a process of its own, on a real controller."""

import asyncio
import json
import os
import sys
import sysconfig
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from achelous_lab.process import Process
from achelous_lab.rundir import RunDir
from achelous_lab.servers.nats import NatsServer
from achelous_lab.servers.postgres import PostgresServer
from achelous_shared.bus_roles import Role

ACHELOUS = Path(sysconfig.get_path("scripts")) / "achelous"


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def problem(self) -> Any:
        return json.loads(self.err)


@dataclass(frozen=True, slots=True)
class Cli:
    """Runs commands with these variables in the environment, and no others of Achelous."""

    env: dict[str, str] = field(default_factory=dict)

    def having(self, **env: str) -> "Cli":
        return replace(self, env={**self.env, **env})

    async def __call__(self, *args: str, stdin: str = "") -> Said:
        child = await self.start(*args)
        async with asyncio.timeout(60):
            out, err = await child.communicate(stdin.encode())
        assert child.returncode is not None
        return Said(child.returncode, out.decode(), err.decode())

    async def start(self, *args: str, stdout: IO[bytes] | int = PIPE) -> asyncio.subprocess.Process:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("ACHELOUS_")}
        # who runs the tests in the background may have SIGINT ignored, which children inherit
        return await asyncio.create_subprocess_exec(
            "env",
            "--default-signal=INT",
            ACHELOUS,
            *args,
            stdin=PIPE,
            stdout=stdout,
            stderr=PIPE,
            env={**inherited, **self.env},
        )

    async def on(self, terminal: IO[bytes], *args: str) -> int:
        """The exit code of a command that writes to a terminal, not more than fits in it."""
        child = await self.start(*args, stdout=terminal)
        async with asyncio.timeout(60):
            return await child.wait()

    async def json(self, *args: str) -> Any:
        """What a command that has to succeed prints with --json."""
        said = await self(*args, "--json")
        assert said.code == 0, said.err
        return said.json


@dataclass(frozen=True, slots=True)
class World:
    """A controller with its servers. ``cli`` is an operator's."""

    cli: Cli
    url: str
    token_file: Path
    nats: NatsServer
    database: AsyncEngine


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A controller of the module's own, on NATS and PostgreSQL of its own."""
    state = tmp_path_factory.mktemp("state")
    with RunDir.create() as directory:
        run_dir, token_file = directory.subdir("run"), directory.path / "operator.token"
        async with (
            NatsServer(directory.subdir("nats")) as nats,
            PostgresServer(directory.subdir("pg"), fsync=False) as postgres,
            Process(
                "controller",
                [sys.executable, "-m", "achelous_controller"],
                log=directory.log("controller"),
                env={
                    "ACHELOUS_NATS_URL": nats.url(Role.CONTROLLER),
                    "ACHELOUS_DSN": postgres.dsn(),
                    "ACHELOUS_RUN_DIR": str(run_dir),
                    "ACHELOUS_OPERATOR_TOKEN_FILE": str(token_file),
                },
                ready=lambda: _there(run_dir),
            ) as controller,
        ):
            address = (run_dir / f"controller-{controller.pid}.http").read_text().strip()
            engine = create_async_engine(postgres.dsn())
            cli = Cli(
                {
                    "ACHELOUS_URL": f"http://{address}",
                    "ACHELOUS_TOKEN_FILE": str(token_file),
                    "XDG_STATE_HOME": str(state),
                }
            )
            yield World(cli, f"http://{address}", token_file, nats, engine)
            await engine.dispose()


async def _there(run_dir: Path) -> bool:
    return any(run_dir.glob("controller-*.http"))


@pytest.fixture
def cli(world: World) -> Cli:
    """An operator's command line."""
    return world.cli
