"""What the database says, as a gateway is told it, and whether everybody agrees with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from achelous_loadgen.gateways import GatewayClient
from achelous_loadgen.sim.host import SimulatedHost
from achelous_shared import messages, rsp, subjects
from achelous_shared.bus import Bus, BusError
from achelous_shared.messages import SnapshotReply, SnapshotRequest
from achelous_shared.routes import MAX_PAGE_ENTRIES, ROUTE, Routes, unpack

_TIMEOUT_S: Final = 10.0


async def snapshot(bus: Bus, vni: int) -> Routes:
    """Every route of a VPC (n,) in order of address. Raises `BusError` if nobody can say."""
    parts: list[Routes] = [np.zeros(0, ROUTE)]
    after = b""
    while True:
        reply = await _page(bus, vni, after, MAX_PAGE_ENTRIES)
        parts.append(unpack(reply.entries))
        if reply.done or not len(parts[-1]):
            return np.concatenate(parts)
        after = parts[-1]["ip"][-1].tobytes()


async def _page(bus: Bus, vni: int, after: bytes, limit: int) -> SnapshotReply:
    request = messages.encode(SnapshotRequest(vni=vni, after=after, limit=limit))
    data = await bus.request(subjects.SNAPSHOT_ROUTES, request, timeout=_TIMEOUT_S)
    reply = messages.decode(data, SnapshotReply)
    if reply.error is not None:
        raise BusError(f"snapshot of VNI {vni}: {reply.error}")
    return reply


@dataclass(frozen=True, slots=True)
class Answers:
    """Of one gateway for many keys (n,): ``vteps`` 0 and ``macs`` zero where it has no route."""

    vteps: npt.NDArray[np.uint32]
    macs: npt.NDArray[np.uint8]


async def answers(gateway: GatewayClient, vni: int, keys: npt.NDArray[np.uint8]) -> Answers:
    """What a gateway serves. Raises `BusError` if it does not answer."""
    vteps = np.zeros(len(keys), np.uint32)
    macs = np.zeros((len(keys), 6), np.uint8)
    for at in range(0, len(keys), rsp.MAX_ENTRIES):
        part = keys[at : at + rsp.MAX_ENTRIES]
        replies = await gateway.ask(np.full(len(part), vni, np.uint32), part)
        if replies is None:
            raise BusError(f"gateway {gateway.id} does not answer")
        routed = replies["type"] == rsp.ReplyType.ROUTE
        hops = np.ascontiguousarray(replies["next_hop"][:, 12:]).view(">u4").reshape(-1)
        vteps[at : at + len(part)] = np.where(routed, hops, 0)
        macs[at : at + len(part)] = np.where(routed[:, None], replies["mac"], 0)
    return Answers(vteps, macs)


async def revision(bus: Bus, vni: int) -> int:
    """The database's revision of a VPC. Raises `BusError` if nobody can say."""
    return (await _page(bus, vni, b"", 1)).revision


async def disagreeing(gateway: GatewayClient, vni: int, hosts: Sequence[SimulatedHost]) -> int:
    """Entries of the hosts' FCs for this VPC that are not what the gateway serves.

    Raises `BusError` if it does not answer.
    """
    learned = np.concatenate([host.learned() for host in hosts])
    learned = learned[learned["vni"] == vni]
    served = await answers(gateway, vni, learned["ip"])
    same = (served.vteps == learned["vtep"]) & (served.macs == learned["mac"]).all(axis=1)
    return int(np.count_nonzero(~same))
