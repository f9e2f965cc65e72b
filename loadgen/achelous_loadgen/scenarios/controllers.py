"""What controllers manage alone: single changes, lists, addresses of a nearly full VPC."""

import asyncio
import base64
import itertools
import time
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Final
from uuid import UUID

import numpy as np

from achelous_lab.servers.postgres import PostgresServer
from achelous_loadgen.results import WHOLE_VPC, Allocation, Controller, Load
from achelous_loadgen.scenarios.programming_time import remove
from achelous_loadgen.sim.host import Place
from achelous_loadgen.tenant import Created, Vpc
from achelous_loadgen.world import World
from achelous_shared.routes import ip_bytes

_CLIENTS: Final = 128
_PAGE: Final = 100
_LISTS: Final = 40
"""Pages of each kind."""
_LATER: Final = 1_000
"""Instances of a VPC that is made after the large one."""
_LONE: Final = 50
_NAMED: Final = IPv4Address("10.128.0.1")
"""Far behind the addresses that are taken."""


async def measure(world: World, vpc: Vpc, seconds: float) -> Controller:
    """All of it, on hosts that only report: agents would take the CPUs from what is measured."""
    places = await world.churned_hosts()
    latencies, took = await _single_changes(world, vpc, places, seconds)
    return Controller(
        single_changes_per_s=round(len(latencies) / took, 1),
        single_p99_ms=_quantile(latencies, 99),
        load_1500000_s=round(vpc.load_s, 1) if vpc.filled >= WHOLE_VPC else None,
        loaded=vpc.filled,
        load_s=round(vpc.load_s, 2),
        load=Load(
            accepted_s=round(vpc.load_s, 2),
            settled_s=round(vpc.settle_s, 2),
            cpu_s={name: round(spent, 2) for name, spent in vpc.load_cpu_s.items()},
        ),
        list_p99_ms=await _lists(world, vpc, places),
        allocation_ms=await _allocation(world, vpc, places),
    )


async def _single_changes(
    world: World, vpc: Vpc, places: Sequence[Place], seconds: float
) -> tuple[list[float], float]:
    """Latencies of creations and deletions one by one, from several clients that each wait for the
    reply; and how long it took."""
    latencies: list[float] = []
    begun = time.perf_counter()
    end = begun + seconds

    async def client(number: int) -> None:
        place = places[number % len(places)]
        made: list[Created] = []
        while (called := time.perf_counter()) < end:
            if made:
                await world.tenant.delete(made.pop())
            else:
                made.append(await world.tenant.create(vpc, place, f"single-{number}"))
            latencies.append(time.perf_counter() - called)
        for created in made:
            await world.tenant.delete(created)

    async with asyncio.TaskGroup() as tasks:
        for number in range(_CLIENTS):
            tasks.create_task(client(number))
    return latencies, time.perf_counter() - begun


async def _lists(world: World, vpc: Vpc, places: Sequence[Place]) -> dict[str, float]:
    """p99 of pages, the first and one far behind, in ms by what they are of.

    Far behind is where the last of a large VPC's instances begin. Identifiers rise with time, and
    a cursor is one of them, or of the vNICs of a subnet or VPC the address, IPv4 mapped.
    """
    listed = await world.tenant.create(vpc, places[0], "listed")
    later = await world.tenant.vpc("later")  # all that is in it is behind all of the large one
    made = await world.tenant.create_many(later.batch(places, _LATER, "later"))
    project = world.tenant.project_id
    queries = {
        "all": "/instances?",
        "name": "/instances?name=listed&",
        "host": f"/instances?host_id={places[0].id}&",
        "state": "/instances?state=ACTIVE&",
        "rare state": "/instances?state=ERROR&",
        "project": f"/instances?project_id={project}&",
        "project and state": f"/instances?project_id={project}&state=BUILDING&",
        "project and rare state": f"/instances?project_id={project}&state=ERROR&",
        "VPC": f"/instances?vpc_id={vpc.id}&",
        "VPC and kind": f"/instances?vpc_id={vpc.id}&kind=container&",
        "VPC and rare kind": f"/instances?vpc_id={vpc.id}&kind=vm&",
        "later VPC": f"/instances?vpc_id={later.id}&",
        "vNICs of the project": f"/vnics?project_id={project}&",
        "vNICs of the VPC": f"/vnics?vpc_id={vpc.id}&",
        "vNICs of the subnet": f"/vnics?subnet_id={vpc.subnet_id}&",
    }
    found = {}
    for (name, path), deep in itertools.product(queries.items(), (False, True)):
        by_address = name in ("vNICs of the VPC", "vNICs of the subnet")
        place_of = ip_bytes(vpc.deep_ip) if by_address else UUID(vpc.deep_id).bytes
        cursor = base64.urlsafe_b64encode(place_of).decode().rstrip("=")
        after = f"&cursor={cursor}" if deep else ""
        took = []
        for _ in range(_LISTS):
            begun = time.perf_counter()
            await world.http.call("GET", f"{path}limit={_PAGE}{after}")
            took.append(time.perf_counter() - begun)
        found[f"{name}, deep" if deep else name] = _quantile(took, 99)
    await remove(world, vpc, [listed])
    await remove(world, later, made)
    return found


async def _allocation(world: World, vpc: Vpc, places: Sequence[Place]) -> Allocation:
    """Lone creations that are given an address, and those that name one, in turn."""
    postgres = world.platform.lab.postgres if world.platform.lab else None
    given: list[float] = []
    named: list[float] = []
    made: list[Created] = []
    if postgres is not None:
        await _forget_statements(postgres)
    for number in range(_LONE):
        place = places[number % len(places)]
        for took, ip in ((given, None), (named, str(_NAMED + number))):
            begun = time.perf_counter()
            made.append(await world.tenant.create(vpc, place, f"lone-{number}", ip))
            took.append(time.perf_counter() - begun)
    statement = None if postgres is None else await _walk_ms(postgres)
    await remove(world, vpc, made)
    return Allocation(
        given_p50=_quantile(given, 50),
        given_p99=_quantile(given, 99),
        named_p50=_quantile(named, 50),
        named_p99=_quantile(named, 99),
        statement=statement,
    )


async def _forget_statements(postgres: PostgresServer) -> None:
    await postgres.query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    await postgres.query("SELECT pg_stat_statements_reset()")


async def _walk_ms(postgres: PostgresServer) -> float | None:
    """Mean ms of the walk over addresses in use that finds a free one; its window tells it."""
    rows = await postgres.query(
        r"SELECT max(mean_exec_time) FROM pg_stat_statements WHERE query ~ 'lag\(ip' HAVING"
        " count(*) > 0"
    )
    return round(float(rows[0][0]), 3) if rows else None


def _quantile(seconds: Sequence[float], part: float) -> float:
    """In ms."""
    return round(float(np.percentile(seconds, part)) * 1e3, 2)
