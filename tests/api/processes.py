"""Controllers as processes."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from api.client import Api

from achelous_lab.process import Process


class ControllerProcess:
    """`python -m achelous_controller` with its files in `directory`."""

    def __init__(self, directory: Path, dsn: str, nats_url: str) -> None:
        self.token_file = directory / "operator.token"
        self._run = directory / "run"
        self.process = Process(
            "controller",
            [sys.executable, "-m", "achelous_controller"],
            log=directory / "controller.log",
            env={
                "ACHELOUS_DSN": dsn,
                "ACHELOUS_NATS_URL": nats_url,
                "ACHELOUS_RUN_DIR": str(self._run),
                "ACHELOUS_OPERATOR_TOKEN_FILE": str(self.token_file),
            },
            ready=self._ready,
        )

    @property
    def address_file(self) -> Path:
        return self._run / f"controller-{self.process.pid}.http"

    @property
    def url(self) -> str:
        return f"http://{self.address_file.read_text().strip()}"

    async def start(self) -> None:
        await self.process.start(timeout=30)

    @asynccontextmanager
    async def operator(self, token_file: Path | None = None) -> AsyncIterator[Api]:
        """A client with the first operator's token."""
        token = (token_file or self.token_file).read_text().strip()
        async with httpx.AsyncClient(base_url=self.url, timeout=30) as http:
            yield Api(http, token)

    async def _ready(self) -> bool:
        return self.address_file.exists()
