"""NATS with JetStream, from a wheel, on loopback, with a user per role."""

import asyncio
import json
import secrets
import sysconfig
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from achelous_lab.process import Process
from achelous_shared.bus_roles import Role, role_permissions

MAX_PAYLOAD_BYTES: Final = 8 * 1024 * 1024
STORE_BYTES: Final = 1024 * 1024 * 1024


class NatsServer:
    """A server whose files (configuration, streams, log) are all in `directory`.

    It takes a free port at its first start and keeps it, so that clients find it again after
    a crash. JetStream does not wait for the disk: kill -9 loses nothing, a power failure may.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._passwords = {role: secrets.token_urlsafe(24) for role in Role}
        self._config = directory / "nats.conf"
        self._port = -1
        binary = Path(sysconfig.get_path("scripts")) / "nats-server"
        self.process = Process(
            "nats",
            [binary, "-c", self._config],
            log=directory / "nats.log",
            ready=self._ready,
        )

    def url(self, role: Role) -> str:
        """nats://user:password@127.0.0.1:port of one role."""
        return f"nats://{role}:{self._passwords[role]}@127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Start, or start again on the same port with the same streams."""
        self._config.touch(mode=0o600)
        self._config.write_text(json.dumps(self._settings(), indent=1))
        await self.process.start()

    async def stop(self) -> None:
        await self.process.stop()

    async def kill9(self) -> None:
        await self.process.kill9()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self.stop()

    def _settings(self) -> dict[str, Any]:
        return {
            "server_name": "achelous-lab",
            "listen": f"127.0.0.1:{self._port}",
            "ports_file_dir": str(self._directory),
            "max_payload": MAX_PAYLOAD_BYTES,
            "jetstream": {
                "store_dir": str(self._directory / "jetstream"),
                "max_memory_store": STORE_BYTES,
                "max_file_store": STORE_BYTES,
            },
            "authorization": {"users": [self._user(role) for role in Role]},
        }

    def _user(self, role: Role) -> dict[str, Any]:
        allowed = role_permissions(role)
        return {
            "user": role.value,
            "password": self._passwords[role],
            "permissions": {"publish": allowed.publish, "subscribe": allowed.subscribe},
        }

    async def _ready(self) -> bool:
        """Whether the server greets its clients, which it does after it has read its streams."""
        if self._port == -1:
            ports = self._directory / f"nats-server_{self.process.pid}.ports"
            try:
                url: str = json.loads(ports.read_text())["nats"][0]
            except (FileNotFoundError, ValueError):
                return False  # not written, or not whole yet
            self._port = int(url.rpartition(":")[2])
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        try:
            return (await asyncio.wait_for(reader.readline(), 2)).startswith(b"INFO ")
        finally:
            writer.close()
            await writer.wait_closed()
