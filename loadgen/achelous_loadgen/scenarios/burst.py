"""Many containers at once, into the VPC that is there."""

import time
from typing import Final

from achelous_loadgen import waiting
from achelous_loadgen.results import Burst
from achelous_loadgen.scenarios.programming_time import remove
from achelous_loadgen.tenant import MAX_BATCH, Vpc
from achelous_loadgen.world import World
from achelous_shared.routes import ip_bytes

_WAIT_S: Final = 120.0


async def measure(world: World, vpc: Vpc, count: int) -> Burst:
    """One call; reachable are those that all gateways know and that run on their host.

    Raises ValueError if it does not fit: one call, and the hosts' ports.
    """
    room = sum(host.agent.state.dataplane.ports.size - 1 for host in world.hosts)
    if count > min(MAX_BATCH, room):
        raise ValueError(
            f"a burst of {count} does not fit: one call takes {MAX_BATCH}, and"
            f" {len(world.hosts)} simulated hosts run {room}"
        )
    places = [host.place for host in world.hosts]
    before = vpc.filled
    called = time.perf_counter()
    created = await world.tenant.create_many(vpc, places, count, "burst")
    replied = time.perf_counter()
    by_id = {str(host.place.id): host for host in world.hosts}
    owners = [by_id[one.host_id] for one in created]
    targets = vpc.targets(created, [owner.place.vtep for owner in owners])
    known = await world.watch.until_met(targets, _WAIT_S)
    missing = [
        (owner, ip_bytes(one.vnics[0].ip)) for owner, one in zip(owners, created, strict=True)
    ]

    def all_run() -> bool:
        while missing and missing[-1][0].path.has_port(vpc.vni, missing[-1][1]):
            missing.pop()
        return not missing

    running = await waiting.until(all_run, f"{len(missing)} have no port yet", _WAIT_S)
    await remove(world, vpc, created)
    return Burst(
        instances=count,
        last_reachable_s=round(max(known, running) - called, 3),
        api_s=round(replied - called, 3),
        gateways_s=round(known - called, 3),
        hosts_s=round(running - called, 3),
        vpc=before,
    )
