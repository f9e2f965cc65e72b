"""A tenant and its VPCs, filled by the API."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import cycle
from socket import inet_aton
from typing import Any, Final

import msgspec

from achelous_lab.api import ApiRefused, Object
from achelous_loadgen.awaited import MAPPED, NOWHERE, Targets
from achelous_loadgen.http import Http, Reply
from achelous_loadgen.sim.host import Place
from achelous_shared.routes import mac_bytes

MAX_BATCH: Final = 20_000
_QUOTA: Final = 10_000_000
_AT_ONCE: Final = 128
_CALLS: Final = 2
_SETTLE_S: Final = 0.2
_UNSETTLED: Final = ("BUILDING", "ERROR", "DELETING")


class Vnic(msgspec.Struct):
    """As much of a vNIC as is used here."""

    ip: str
    mac: str


class Created(msgspec.Struct):
    """As much of an instance."""

    id: str
    host_id: str
    vnics: list[Vnic]


class _Batch(msgspec.Struct):
    instances: list[Created]


class _Page(msgspec.Struct):
    items: list[Created]


_batches: Final = msgspec.json.Decoder(_Batch)
_pages: Final = msgspec.json.Decoder(_Page)
_single: Final = msgspec.json.Decoder(Created)


@dataclass(slots=True)
class Vpc:
    """A VPC with one subnet, 10.0.0.0/8. ``filled``: instances that stay in it."""

    id: str
    subnet_id: str
    vni: int
    model: str
    filled: int = 0
    load_s: float = 0.0
    """Seconds that the API took to accept them."""
    settle_s: float = 0.0
    """Seconds from then on until all were ACTIVE."""
    load_cpu_s: Counter[str] = field(default_factory=Counter)
    """CPU seconds of each service for both."""
    deep_id: str = ""
    """Of an instance with most of the others before it in order of identifiers."""
    deep_ip: str = ""
    """Its address, which has most of the others before it as well."""

    def body(self, place: Place, name: str, ip: str | None = None) -> bytes:
        """Of a new container on that host; without ``ip`` it gets a free address."""
        address = f',"ip":"{ip}"' if ip else ""
        return (
            f'{{"name":"{name}","kind":"container","host_id":"{place.id}",'
            f'"vnics":[{{"subnet_id":"{self.subnet_id}"{address}}}]}}'
        ).encode()

    def batch(self, places: Sequence[Place], count: int, prefix: str) -> bytes:
        """Of ``count`` containers (`MAX_BATCH` at most), dealt out to the hosts."""
        ends = [self.body(place, "\n").partition(b"\n") for place in places]
        names = f"{prefix}-%d".encode()
        parts = [
            b"%b%b%b" % (head, names % number, tail)
            for number, (head, _, tail) in zip(range(count), cycle(ends), strict=False)
        ]
        return b'{"instances":[%b]}' % b",".join(parts)

    def targets(self, created: Sequence[Created], vteps: Sequence[IPv4Address | None]) -> Targets:
        """Where each of them shall be found; None: nowhere."""
        keys = b"".join([MAPPED + inet_aton(one.vnics[0].ip) for one in created])
        macs = b"".join([mac_bytes(one.vnics[0].mac) for one in created])
        return Targets(
            self.vni,
            keys,
            macs,
            b"".join([vtep.packed if vtep else NOWHERE for vtep in vteps]),
        )


@dataclass(slots=True)
class Tenant:
    """A project of the run's own."""

    http: Http
    project_id: str
    models: tuple[str, ...]
    """Programming models that the API offers for a VPC, `alm` first."""
    vpcs: list[Vpc] = field(default_factory=list)

    async def vpc(self, name: str, model: str = "alm") -> Vpc:
        """A new one, empty."""
        body: Object = {"name": name, "project_id": self.project_id}
        if len(self.models) > 1:
            body["programming_model"] = model
        made = await self.http.post("/vpcs", body)
        subnet = {"vpc_id": made["id"], "name": "all", "cidr": "10.0.0.0/8"}
        subnet_id = (await self.http.post("/subnets", subnet))["id"]
        vpc = Vpc(made["id"], subnet_id, made["vni"], model)
        self.vpcs.append(vpc)
        return vpc

    async def create(self, vpc: Vpc, place: Place, name: str, ip: str | None = None) -> Created:
        """One instance on a host."""
        body = vpc.body(place, name, ip)
        return _single.decode((await self.http.call("POST", "/instances", body)).body)

    async def create_many(self, batch: bytes) -> list[Created]:
        """One call for all of a `Vpc.batch`."""
        return made_by(await self.post_many(batch))

    async def post_many(self, batch: bytes) -> Reply:
        """Like `create_many`, without a look at the reply: it has 12 MB, and who measures what
        happens then has better uses for the CPU. See `made_by`."""
        return await self.http.call("POST", "/instances:batch", batch)

    async def move(self, created: Created, place: Place) -> None:
        """Give one another host."""
        body = b'{"host_id":"%s"}' % str(place.id).encode()
        await self.http.call("PATCH", f"/instances/{created.id}", body)

    async def delete(self, created: Created) -> None:
        """Ask for one's end; gone already is as good."""
        await self.http.call("DELETE", f"/instances/{created.id}")

    async def delete_many(self, created: Sequence[Created]) -> None:
        """Ask for the end of all."""
        limit = asyncio.Semaphore(_AT_ONCE)

        async def one(instance: Created) -> None:
            async with limit:
                await self.delete(instance)

        await asyncio.gather(*(one(instance) for instance in created))

    async def fill(self, vpc: Vpc, places: Sequence[Place], count: int) -> list[Created]:
        """``count`` more instances that stay, a call's on the same few hosts, as a scheduler that
        fills hosts would have it; returns those of the last call.

        Two calls are under way at once: while the API serves one, the next one is made and waits.
        """
        first, last = vpc.filled, (count - 1) // MAX_BATCH * MAX_BATCH
        starts = iter(range(0, count, MAX_BATCH))
        created: list[Created] = []

        async def client() -> None:
            for at in starts:
                number = min(MAX_BATCH, count - at)
                begin, end = at * len(places) // count, -(-(at + number) * len(places) // count)
                reply = await self.post_many(vpc.batch(places[begin:end], number, f"{first + at}"))
                vpc.filled += number
                if at == last:
                    created.extend(made_by(reply))

        begun = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_CALLS):
                tasks.create_task(client())
        vpc.load_s += time.perf_counter() - begun
        vpc.deep_id, vpc.deep_ip = created[0].id, created[0].vnics[0].ip
        return created

    async def unsettled(self) -> int:
        """Instances that are not what they shall become, 100 of each state at most.

        By a page of each: `/status` counts those of all projects.
        """
        path = f"/instances?project_id={self.project_id}&limit=100&state="
        replies = [await self.http.call("GET", f"{path}{state}") for state in _UNSETTLED]
        return sum(len(_pages.decode(reply.body).items) for reply in replies)

    async def until_settled(self, timeout: float) -> None:
        """Until none is on its way any more. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while unsettled := await self.unsettled():
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"after {timeout:g} s {unsettled} instances or more are on their way"
                )
            await asyncio.sleep(_SETTLE_S)

    async def clean_up(self) -> None:
        """Delete all that was made. Raises ApiRefused if something does not go in a minute."""
        path = f"/instances?project_id={self.project_id}&limit=1000"
        while page := (await self.http.get(path))["items"]:
            left = [
                _single.decode(msgspec.json.encode(one))
                for one in page
                if one["state"] != "DELETING"
            ]
            await self.delete_many(left)
            await asyncio.sleep(0.1)
        for vpc in self.vpcs:
            await _delete(self.http, f"/subnets/{vpc.subnet_id}")
            await _delete(self.http, f"/vpcs/{vpc.id}")
        await _delete(self.http, f"/projects/{self.project_id}")


async def _delete(http: Http, path: str) -> None:
    """What is in use for a moment longer is tried again."""
    deadline = time.monotonic() + 60
    while True:
        try:
            await http.call("DELETE", path)
        except ApiRefused as refused:
            if refused.status != 409 or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
        else:
            return


def made_by(reply: Reply) -> list[Created]:
    """What a call for many has made."""
    return _batches.decode(reply.body).instances


async def make_tenant(http: Http) -> Tenant:
    """A project with quotas that are not in the way."""
    quotas = dict.fromkeys(
        ("vpcs", "subnets", "security_groups", "security_group_rules", "instances", "vnics"), _QUOTA
    )
    body = {"name": f"load-{secrets.token_hex(4)}", "quotas": quotas}
    project = await http.post("/projects", body)
    return Tenant(http, project["id"], await _models(http))


async def _models(http: Http) -> tuple[str, ...]:
    """What the API's own description says that a VPC can be created with."""
    described: dict[str, Any] = msgspec.json.decode(await http.outside("/openapi.json") or b"{}")
    schemas = described.get("components", {}).get("schemas", {"VpcCreate": {"properties": {}}})
    known = schemas["VpcCreate"]["properties"].get("programming_model", {})
    for part in (known, *known.get("allOf", ())):
        if "$ref" in part:
            known = schemas[part["$ref"].rpartition("/")[2]]
    models = known.get("enum", ["alm"])
    return tuple(sorted(models, key=lambda model: model != "alm"))
