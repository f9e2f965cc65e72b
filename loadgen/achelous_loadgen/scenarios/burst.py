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
_HOSTS: Final = 40
_SIMULATED: Final = 2
"""Of the hosts: all of them in one process would take turns with its one CPU."""


async def measure(world: World, vpc: Vpc, count: int) -> Burst:
    """One call; reachable are those that all gateways know and that run on their host.

    The request's bytes are made before the clock starts, as a client's work that is not the
    platform's; reading the addresses in the reply is within the time.

    The hosts all get as many. Two are simulated, and do what a host has to do; the others only
    report, as theirs would be the CPUs of other machines. Raises ValueError if it does not fit.
    """
    if count > MAX_BATCH:
        raise ValueError(f"a burst of {count} does not fit: one call takes {MAX_BATCH}")
    simulated = world.hosts[:_SIMULATED]
    parked = (await world.churned_hosts())[: _HOSTS - len(simulated)]
    places = [*(host.place for host in simulated), *parked]
    vteps = {str(place.id): place.vtep for place in places}
    agents = {str(host.place.id): host for host in simulated}
    before, batch, used = vpc.filled, vpc.batch(places, count, "burst"), world.usage.cpu_seconds()
    called = time.perf_counter()
    created = await world.tenant.create_many(batch)
    replied = time.perf_counter()
    targets = vpc.targets(created, [vteps[one.host_id] for one in created])
    known = await world.watch.until_met(targets, _WAIT_S)
    missing = [
        (agents[one.host_id], ip_bytes(one.vnics[0].ip)) for one in created if one.host_id in agents
    ]
    on_simulated = len(missing)

    def all_run() -> bool:
        while missing and missing[-1][0].path.has_port(vpc.vni, missing[-1][1]):
            missing.pop()
        return not missing

    running = await waiting.until(all_run, "some have no port yet", _WAIT_S, *simulated)
    spent = world.usage.spent_since(used)
    await remove(world, vpc, created)
    return Burst(
        instances=count,
        last_reachable_s=round(max(known, running) - called, 3),
        api_s=round(replied - called, 3),
        gateways_s=round(known - called, 3),
        hosts_s=round(running - called, 3),
        vpc=before,
        on_simulated_hosts=on_simulated,
        cpu_s=spent,
    )
