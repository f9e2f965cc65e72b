"""The platform under load: one of its own, or one that runs already."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final
from uuid import UUID

from achelous_lab.platform import Lab, Size
from achelous_lab.process import Process
from achelous_loadgen.http import Http
from achelous_loadgen.options import Attach
from achelous_shared.bus import Bus
from achelous_shared.bus_roles import Role

_GATEWAY_VTEPS: Final = IPv4Address("198.19.255.0")
_ROUTE_CAPACITY: Final = 2_000_000
_BUS_S: Final = 10.0
_CONNECTIONS: Final = 256


@dataclass(slots=True)
class OwnGateway:
    """A gateway's process. `start` again takes it up as it was."""

    id: UUID
    process: Process


@dataclass(slots=True)
class Platform:
    """``lab`` and ``own`` are of a platform that this run has started: faults are for it alone."""

    http: Http
    nats: Callable[[Role], str]
    gateways: list[UUID]
    controllers: Callable[[], list[str]]
    """URLs of those that run."""
    lab: Lab | None = None
    own: list[OwnGateway] = field(default_factory=list)
    proxies: AsyncExitStack = field(default_factory=AsyncExitStack)
    """What stands between gateways and the bus by now; ends after the gateways."""

    def pids(self) -> dict[str, int]:
        """Of the services that run here, and of this process, which has the simulated hosts."""
        found = {"loadgen": os.getpid()}
        if self.lab is None:
            return found
        named = [(process.name, process) for process in self.lab.controllers]
        named += [(gateway.process.name, gateway.process) for gateway in self.own]
        if self.lab.nats and self.lab.postgres:
            named += [("nats", self.lab.nats.process), ("postgres", self.lab.postgres.process)]
        return found | {name: process.pid for name, process in named if process.running}


@asynccontextmanager
async def own_platform(gateways: int = 2, controllers: int = 2) -> AsyncIterator[Platform]:
    """Servers, controllers, and gateways without a relay, which needs neither root nor eBPF."""
    size = Size(hosts=0, gateways=0, controllers=controllers, dataplane=False)
    async with Lab(size) as lab:
        token = lab.operator_token_file.read_text().strip()
        async with Http(lambda: _urls(lab), token, _CONNECTIONS) as http:
            own = [await _gateway(lab, http, number) for number in range(1, gateways + 1)]
            async with AsyncExitStack() as proxies:
                try:
                    for gateway in own:
                        await gateway.process.start(timeout=60)
                    ids = [gateway.id for gateway in own]
                    yield Platform(http, lab.nats_url, ids, lambda: _urls(lab), lab, own, proxies)
                finally:
                    for gateway in own:
                        await gateway.process.stop()


@asynccontextmanager
async def attached(attach: Attach) -> AsyncIterator[Platform]:
    """The platform that runs, with its gateways."""
    async with Http(lambda: [attach.url], attach.token, _CONNECTIONS) as http:
        if await http.outside("/openapi.json") is None:
            raise ValueError(f"no API answers at {attach.url}")
        await _check_bus(attach.nats_url)
        page = await http.get("/gateways?limit=1000")
        gateways = [UUID(gateway["id"]) for gateway in page["items"]]
        if not gateways:
            raise ValueError(f"{attach.url} has no gateway: nothing could be programmed")
        yield Platform(http, lambda _: attach.nats_url, gateways, lambda: [attach.url])


async def _check_bus(url: str) -> None:
    try:
        async with asyncio.timeout(_BUS_S), Bus.connect(url, role=Role.OBSERVER, name="loadgen"):
            return
    except TimeoutError:
        where = url.rpartition("@")[2]
        raise ValueError(f"no bus at {where} lets this user in within {_BUS_S:g} s") from None


def _urls(lab: Lab) -> list[str]:
    with suppress(OSError):  # a controller that has just ended took its file with it
        return [f"http://{address}" for address in lab.addresses]
    return []


async def _gateway(lab: Lab, http: Http, number: int) -> OwnGateway:
    body = {"name": f"g{number}", "vtep": str(_GATEWAY_VTEPS + number)}
    gateway_id = UUID((await http.post("/gateways", body))["id"])
    return OwnGateway(gateway_id, gateway_process(lab, gateway_id, f"g{number}"))


def gateway_process(lab: Lab, gateway_id: UUID, name: str, nats_url: str | None = None) -> Process:
    """Of a registered gateway; not started. ``nats_url``: another way to the bus."""
    address_file = lab.run_dir.path / f"gateway-{gateway_id}.http"
    environment = {
        "NATS_URL": nats_url or lab.nats_url(Role.GATEWAY),
        "RUN_DIR": str(lab.run_dir.path),
        "HTTP": "127.0.0.1:0",
        "GATEWAY_ID": str(gateway_id),
        "DATAPLANE": "none",
        "ROUTE_CAPACITY": str(_ROUTE_CAPACITY),
    }
    return Process(
        name,
        [sys.executable, "-m", "achelous_gateway"],
        log=lab.run_dir.log(name),
        env={f"ACHELOUS_{key}": value for key, value in environment.items()},
        ready=_is_ready(address_file),
    )


def _is_ready(address_file: Path) -> Callable[[], Awaitable[bool]]:
    async def ready() -> bool:
        if not address_file.exists():
            return False
        async with Http(lambda: [f"http://{address_file.read_text().strip()}"], "", 1) as http:
            return await http.outside("/readyz") is not None

    return ready
