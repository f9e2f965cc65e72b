"""The whole platform on one machine: servers, controllers, gateways, hosts, guests."""

import asyncio
import itertools
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from uuid import UUID

import httpx

from achelous_lab import syscalls
from achelous_lab.api import Api, Object, Rule
from achelous_lab.netns.cables import Cables
from achelous_lab.netns.guest import Guest, Nic
from achelous_lab.netns.network import Network
from achelous_lab.netns.underlay import UNDERLAY_DEVICE, UNDERLAY_NETWORK, Node
from achelous_lab.process import Process
from achelous_lab.rundir import RunDir
from achelous_lab.servers.nats import NatsServer
from achelous_lab.servers.postgres import PostgresServer
from achelous_shared.bpf import ensure_bpffs
from achelous_shared.bus_roles import Role
from achelous_shared.names import GATEWAY_SHARDS, port_ifname

HOST_CAPACITY: Final = 900
_FIRST_GATEWAY: Final = UNDERLAY_NETWORK.network_address + 0x0101
_FIRST_HOST: Final = UNDERLAY_NETWORK.network_address + 0x0201
_START_S: Final = 30.0
_SIZES: Final = {
    "ROUTE_CAPACITY": "65536",
    "MAX_FC": "8192",
    "MAX_PREPROGRAMMED": "8192",
    "MAX_SESSIONS": "32768",
}
"""Of the agents' maps, which take their memory at once: small, as many agents share one machine.
The same variable in the lab's own environment is stronger."""

_BUILT: Final = Path(__file__).parents[2] / "build" / "bpf"
"""Where `make bpf` puts the compiled objects of this checkout."""


@dataclass(frozen=True, slots=True)
class Size:
    """How many of each. Without a data plane there are controllers only."""

    hosts: int = 3
    gateways: int = 2
    controllers: int = 1
    dataplane: bool = True
    gateway_groups: int = 1
    """Gateways and the shards of VPCs are dealt out to so many groups, in turn."""
    cabling: type[Cables] = Cables
    """`Wires`: its guests cannot be moved, and their cables cost nothing."""
    shared_buffers: str = "64MB"
    preload: str = ""
    """Both of PostgreSQL."""


@dataclass(frozen=True, slots=True)
class External:
    """Servers that exist already, used instead of embedded ones."""

    dsn: str | None = None
    nats_url: str | None = None
    """With a user who may do what all three roles may."""
    operator_token_file: Path | None = None
    """Where the operator's token is, or is written if the database is empty."""


class Machine:
    """A host or gateway: its node on the underlay, its agent's process, its id in the API."""

    def __init__(self, machine_id: UUID, node: Node, agent: Process) -> None:
        self.id = machine_id
        self.node = node
        self.agent = agent

    @property
    def name(self) -> str:
        """As the API knows it."""
        return self.agent.name


@dataclass(slots=True)
class Instance:
    """A guest that is an instance of the platform."""

    id: UUID
    guest: Guest
    host: Machine
    vnics: list[Object]


class Tenant:
    """A project with a token of its own, a VPC, a subnet and a security group that admits all."""

    def __init__(self, api: Api, project_id: str, token: str) -> None:
        self.api = api
        self.project_id = project_id
        self.token = token

    async def vpc(self, name: str, **more: object) -> Object:
        """A VPC; ``more``: further members as the API takes them, such as programming_model."""
        return await self.api.post("/vpcs", {"name": name} | more)

    async def subnet(
        self, vpc: Object, cidr: str, name: str | None = None, **more: object
    ) -> Object:
        """A subnet; ``more``: further members as the API takes them, such as cidr6."""
        body = {"vpc_id": vpc["id"], "name": name or cidr.replace("/", "-"), "cidr": cidr}
        return await self.api.post("/subnets", body | more)

    async def security_group(self, vpc: Object, name: str, *rules: Rule) -> Object:
        group = await self.api.post("/security-groups", {"vpc_id": vpc["id"], "name": name})
        for rule in rules:
            await self.add_rule(group, rule)
        return group

    async def add_rule(self, group: Object, rule: Rule) -> Object:
        return await self.api.post(f"/security-groups/{group['id']}/rules", rule.body())


class Lab:
    """A platform in namespaces and processes of its own; all of it is gone at the end.

    `async with Lab(Size(hosts=2)) as lab:`; also after a failure nothing is left behind.
    """

    def __init__(self, size: Size | None = None, external: External | None = None) -> None:
        self.size = size or Size()
        self._external = external or External()
        self._stack = AsyncExitStack()
        self._clients = AsyncExitStack()
        self._services: list[Process] = []
        self._guest_numbers = itertools.count(1)
        self.controllers: list[Process] = []
        self.gateways: list[Machine] = []
        self.hosts: list[Machine] = []
        self.instances: list[Instance] = []

    run_dir: RunDir
    nats: NatsServer | None = None
    postgres: PostgresServer | None = None
    network: Network
    api: Api
    """As an operator."""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self.run_dir = stack.enter_context(RunDir.create())
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _start(self, stack: AsyncExitStack) -> None:
        if self.size.dataplane:
            self.network = await stack.enter_async_context(Network(self.run_dir, self.size.cabling))
            bpffs = self.run_dir.subdir("bpffs")
            ensure_bpffs(bpffs)
            stack.callback(syscalls.unmount, bpffs)
        if self._external.nats_url is None:
            self.nats = NatsServer(self.run_dir.subdir("nats"))
            await stack.enter_async_context(self.nats)
        if self._external.dsn is None:
            self.postgres = PostgresServer(
                self.run_dir.subdir("postgres"),
                fsync=False,
                shared_buffers=self.size.shared_buffers,
                preload=self.size.preload,
            )
            await stack.enter_async_context(self.postgres)
        stack.push_async_callback(self._stop_services)
        stack.push_async_callback(self._clients.aclose)
        self.controllers.append(await self._controller(1))
        self.api = self.client(self._operator_token())
        try:
            await self._start_rest()
        except ExceptionGroup as failed:  # the first of them says why, with its log's last lines
            raise failed.exceptions[0] from failed

    async def _start_rest(self) -> None:
        """Side by side: what takes long is each process's imports."""
        size = self.size
        async with asyncio.TaskGroup() as group:
            controllers = [
                group.create_task(self._controller(number))
                for number in range(2, size.controllers + 1)
            ]
            gateways, hosts = [
                [group.create_task(start(number)) for number in range(count)]
                for start, count in (
                    (self._gateway, size.gateways if size.dataplane else 0),
                    (self._host, size.hosts if size.dataplane else 0),
                )
            ]
        self.controllers += [task.result() for task in controllers]
        self.gateways += [task.result() for task in gateways]
        self.hosts += [task.result() for task in hosts]

    async def _stop_services(self) -> None:
        await asyncio.gather(*(process.stop() for process in self._services))

    @property
    def route_capacity(self) -> int:
        """Of each gateway's map."""
        return int(os.environ.get("ACHELOUS_ROUTE_CAPACITY", _SIZES["ROUTE_CAPACITY"]))

    @property
    def operator_token_file(self) -> Path:
        return self._external.operator_token_file or self.run_dir.path / "operator.token"

    def _operator_token(self) -> str:
        try:
            return self.operator_token_file.read_text().strip()
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{self.operator_token_file} does not exist, and the database is not empty: name"
                " the file that its first start wrote"
            ) from None

    @property
    def addresses(self) -> list[str]:
        """address:port of each controller that listens."""
        files = [
            self._address_file("controller", str(process.pid))
            for process in self.controllers
            if process.running
        ]
        return [file.read_text().strip() for file in files if file.exists()]

    def nats_url(self, role: Role) -> str:
        return self._external.nats_url or self._nats().url(role)

    def write_nats_url(self) -> Path:
        """The file, for its owner alone, with the bus's URL of a user who may do everything."""
        file = self.run_dir.path / "nats.url"
        file.touch(mode=0o600)
        file.write_text(self.nats_url(Role.OBSERVER))
        return file

    def dsn(self) -> str:
        if self._external.dsn is not None:
            return self._external.dsn
        if self.postgres is None:
            raise RuntimeError("the lab has no database before it has started")
        return self.postgres.dsn()

    def client(self, token: str) -> Api:
        """A client with that token, closed with the lab."""
        api = Api(lambda: self.addresses, token)
        self._clients.push_async_exit(api)
        return api

    async def tenant(self, name: str) -> Tenant:
        project = await self.api.post("/projects", {"name": name})
        body = {"name": "lab", "project_id": project["id"]}
        token = (await self.api.post("/tokens", body))["token"]
        return Tenant(self.client(token), project["id"], token)

    async def instance(
        self,
        tenant: Tenant,
        subnet: Object,
        name: str,
        *,
        host: Machine | None = None,
        ip: str | None = None,
        groups: Sequence[Object] | None = None,
        kind: str = "vm",
        more_vnics: Sequence[Object] = (),
        wait: bool = True,
    ) -> Instance:
        """Create an instance by the API, plug in its guest, wait until it is ACTIVE.

        Its first vNIC is in `subnet`; `more_vnics` are bodies (`vnic_body`) of further ones.
        """
        vnic = vnic_body(subnet, ip=ip, groups=groups)
        body: Object = {"name": name, "kind": kind, "vnics": [vnic, *more_vnics]}
        if host is not None:
            body["host_id"] = str(host.id)
        created = await self.api.post("/instances", body | {"project_id": tenant.project_id})
        instance = await self.plug_in(created)
        if wait:
            await self.api.wait_active(str(instance.id))
        return instance

    async def plug_in(self, created: Object) -> Instance:
        """Play the hypervisor: the guest of an instance, its devices on the instance's host."""
        host = next(host for host in self.hosts if str(host.id) == created["host_id"])
        subnets = [await self.api.get(f"/subnets/{vnic['subnet_id']}") for vnic in created["vnics"]]
        guest = await self.network.guest(f"vm{next(self._guest_numbers)}")
        try:
            for vnic, subnet in zip(created["vnics"], subnets, strict=True):
                cable = await guest.add_nic(self.network.cables, _nic(vnic, subnet))
                await cable.plug(host.node.namespace, port_ifname(UUID(vnic["id"])))
        except BaseException:
            await self.network.remove_guest(guest)
            raise
        instance = Instance(UUID(created["id"]), guest, host, created["vnics"])
        self.instances.append(instance)
        return instance

    async def unplug(self, instance: Instance) -> None:
        """Take the guest away, as when the hypervisor has stopped it."""
        await self.network.remove_guest(instance.guest)
        self.instances.remove(instance)

    async def _controller(self, number: int) -> Process:
        environment = {
            "NATS_URL": self.nats_url(Role.CONTROLLER),
            "DSN": self.dsn(),
            "OPERATOR_TOKEN_FILE": str(self.operator_token_file),
        }
        process = self._process(
            f"controller{number}",
            "achelous_controller",
            environment,
            lambda: self._ready("controller", str(process.pid), "healthz"),
        )
        return await process.start(_START_S)

    async def _gateway(self, number: int) -> Machine:
        name, ip = f"g{number + 1}", _FIRST_GATEWAY + number
        groups = self.size.gateway_groups
        shards = list(range(number % groups, GATEWAY_SHARDS, groups))
        body = {"name": name, "vtep": str(ip), "shards": shards}
        machine_id = await self._register("/gateways", body)
        return await self._machine(Role.GATEWAY, name, ip, machine_id)

    async def _host(self, number: int) -> Machine:
        name, ip = f"h{number + 1}", _FIRST_HOST + number
        body = {"name": name, "vtep": str(ip), "capacity": HOST_CAPACITY}
        machine_id = await self._register("/hosts", body)
        return await self._machine(Role.VSWITCH, name, ip, machine_id)

    async def _register(self, path: str, body: Object) -> str:
        """The id of a machine; one that the database has from an earlier time stays what it was."""
        known = (await self.api.get(path, name=body["name"]))["items"]
        if known and known[0]["vtep"] != body["vtep"]:
            raise ValueError(
                f"the database has {path}/{body['name']} with VTEP {known[0]['vtep']}, which the"
                f" lab's would be {body['vtep']}: it is not a lab's database"
            )
        machine = known[0] if known else await self.api.post(path, body)
        machine_id: str = machine["id"]
        return machine_id

    async def _machine(self, role: Role, name: str, ip: IPv4Address, machine_id: str) -> Machine:
        node = await self.network.underlay.node(name, ip)
        environment = {
            **{name: os.environ.get(f"ACHELOUS_{name}", size) for name, size in _SIZES.items()},
            "BPF_DIR": os.environ.get("ACHELOUS_BPF_DIR", str(_BUILT)),
            "NATS_URL": self.nats_url(role),
            "GATEWAY_ID" if role is Role.GATEWAY else "HOST_ID": machine_id,
            "UNDERLAY_DEVICE": UNDERLAY_DEVICE,
            "NETNS": str(node.namespace.path),
            "BPFFS": str(self.run_dir.path / "bpffs" / name),
        }
        process = self._process(
            name,
            f"achelous_{role}",
            environment,
            lambda: self._ready(role, machine_id, "readyz"),
        )
        return Machine(UUID(machine_id), node, await process.start(_START_S))

    def _process(
        self,
        name: str,
        module: str,
        environment: dict[str, str],
        ready: Callable[[], Awaitable[bool]],
    ) -> Process:
        shared = {"HTTP": "127.0.0.1:0", "RUN_DIR": str(self.run_dir.path)}
        process = Process(
            name,
            [sys.executable, "-m", module],
            log=self.run_dir.log(name),
            env={f"ACHELOUS_{key}": value for key, value in (shared | environment).items()},
            ready=ready,
        )
        self._services.append(process)
        return process

    def _address_file(self, service: str, service_id: str) -> Path:
        return self.run_dir.path / f"{service}-{service_id}.http"

    async def ask(self, service: Process | Machine, path: str) -> httpx.Response:
        """GET from a service's own HTTP server: healthz, readyz, metrics."""
        if isinstance(service, Process):
            return await _get(self._address_file("controller", str(service.pid)), path)
        role = Role.GATEWAY if service in self.gateways else Role.VSWITCH
        return await _get(self._address_file(role, str(service.id)), path)

    async def _ready(self, service: str, service_id: str, check: str) -> bool:
        try:
            return (await _get(self._address_file(service, service_id), check)).is_success
        except (FileNotFoundError, httpx.HTTPError):
            return False

    def _nats(self) -> NatsServer:
        if self.nats is None:
            raise RuntimeError("the lab has no bus before it has started")
        return self.nats


async def _get(address_file: Path, path: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=1) as http:
        return await http.get(f"http://{address_file.read_text().strip()}/{path}")


def vnic_body(
    subnet: Object, *, ip: str | None = None, groups: Sequence[Object] | None = None
) -> Object:
    """A vNIC as the API takes it; what is None is left to the API."""
    body: Object = {"subnet_id": subnet["id"]}
    if ip is not None:
        body["ip"] = ip
    if groups is not None:
        body["security_group_ids"] = [group["id"] for group in groups]
    return body


def _nic(vnic: Object, subnet: Object) -> Nic:
    prefix = subnet["cidr"].partition("/")[2]
    first = vnic["position"] == 0
    nic = Nic(
        mac=vnic["mac"],
        address=IPv4Interface(f"{vnic['ip']}/{prefix}"),
        router=IPv4Address(subnet["gateway_ip"]) if first else None,
    )
    if vnic["ip6"] is None:
        return nic
    prefix6 = subnet["cidr6"].partition("/")[2]
    return replace(
        nic,
        address6=IPv6Interface(f"{vnic['ip6']}/{prefix6}"),
        router6=IPv6Address(subnet["gateway_ip6"]) if first else None,
    )
