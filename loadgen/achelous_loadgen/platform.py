"""The platform under load: one of its own, or one that runs already."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from types import MappingProxyType
from typing import Final
from uuid import UUID

from achelous_lab import syscalls
from achelous_lab.netns.network import Network
from achelous_lab.netns.underlay import UNDERLAY_DEVICE, UNDERLAY_NETWORK
from achelous_lab.platform import Lab, Size
from achelous_lab.process import Process
from achelous_loadgen.http import Http
from achelous_loadgen.options import Attach
from achelous_shared.bpf import ensure_bpffs
from achelous_shared.bus import Bus
from achelous_shared.bus_roles import Role

_GATEWAY_VTEPS: Final = IPv4Address("198.19.255.0")
_RELAY_VTEP: Final = UNDERLAY_NETWORK.network_address + 0x0101
_ROUTE_CAPACITY: Final = 2_000_000
_NO_RELAY: Final = MappingProxyType({"DATAPLANE": "none"})
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
    size = Size(
        hosts=0,
        gateways=0,
        controllers=controllers,
        dataplane=False,
        shared_buffers="1GB",  # tables and indexes of the largest VPC
        preload="pg_stat_statements",
    )
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
    gateway_id = await _registered(http, f"g{number}", _GATEWAY_VTEPS + number)
    return OwnGateway(gateway_id, gateway_process(lab, gateway_id, f"g{number}"))


async def _registered(http: Http, name: str, vtep: IPv4Address) -> UUID:
    return UUID((await http.post("/gateways", {"name": name, "vtep": str(vtep)}))["id"])


@asynccontextmanager
async def relaying_gateway(lab: Lab, http: Http) -> AsyncIterator[OwnGateway]:
    """One more gateway, with its relay, in a namespace; not started. Gone at the end.

    Raises PermissionError for whoever may not make a namespace.
    """
    if os.geteuid():
        raise PermissionError("a gateway with a relay needs a namespace, which only root can make")
    name = "relaying"
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(Network(lab.run_dir))
        node = await network.underlay.node(name, _RELAY_VTEP)
        bpffs = lab.run_dir.subdir("bpffs")
        ensure_bpffs(bpffs)
        stack.callback(syscalls.unmount, bpffs)
        gateway_id = await _registered(http, name, _RELAY_VTEP)
        stack.push_async_callback(http.call, "DELETE", f"/gateways/{gateway_id}")
        settings = {
            "BPF_DIR": os.environ["ACHELOUS_BPF_DIR"],
            "BPFFS": str(bpffs / name),
            "NETNS": str(node.namespace.path),
            "UNDERLAY_DEVICE": UNDERLAY_DEVICE,
        }
        process = gateway_process(lab, gateway_id, name, settings=settings)
        try:
            yield OwnGateway(gateway_id, process)
        finally:
            await process.stop()


def gateway_process(
    lab: Lab,
    gateway_id: UUID,
    name: str,
    nats_url: str | None = None,
    settings: Mapping[str, str] = _NO_RELAY,
) -> Process:
    """Of a registered gateway; not started. ``nats_url``: another way to the bus; ``settings``: of
    its relay."""
    address_file = lab.run_dir.path / f"gateway-{gateway_id}.http"
    environment = {
        "NATS_URL": nats_url or lab.nats_url(Role.GATEWAY),
        "RUN_DIR": str(lab.run_dir.path),
        "HTTP": "127.0.0.1:0",
        "GATEWAY_ID": str(gateway_id),
        "ROUTE_CAPACITY": str(_ROUTE_CAPACITY),
        **settings,
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
