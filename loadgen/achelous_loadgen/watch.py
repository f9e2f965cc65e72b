"""Waiting until every live gateway answers as it should: many destinations, few questions."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from achelous_loadgen.gateways import GatewayClient, Reports
from achelous_shared import rsp

_POLL_S: Final = 0.001
_MANY: Final = 32
_POLL_MANY_S: Final = 0.01
"""With more than ``_MANY`` waiting: asking shall not take the CPUs from what is measured."""
_REQUESTS: Final = 8
"""At most so many questions to one gateway in one turn."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Targets:
    """Destinations of one VPC and the vNICs they shall lead to, or lead to no more.

    ``keys`` (n, 16); ``macs`` (n, 6). A MAC is one vNIC's, so an address that was given to another
    vNIC meanwhile counts as let go of. ``vteps`` (n,): where they shall be; 0: nowhere.
    """

    vni: int
    keys: npt.NDArray[np.uint8]
    macs: npt.NDArray[np.uint8]
    vteps: npt.NDArray[np.uint32]


def _met(macs: npt.NDArray[np.uint8], vteps: npt.NDArray[np.uint32], replies: rsp.Entries) -> Bools:
    """Which targets (m,) their replies (m,) agree with."""
    same = (replies["mac"] == macs).all(axis=1)
    same &= replies["type"] == rsp.ReplyType.ROUTE
    hops = np.ascontiguousarray(replies["next_hop"][:, 12:]).view(">u4").reshape(-1)
    return np.asarray(np.where(vteps == 0, ~same, same & (hops == vteps)))


@dataclass(slots=True, eq=False)
class _Group:
    targets: Targets
    open: list[Bools]
    """By gateway, which are not met yet."""
    done: "asyncio.Future[float]"
    at: float = field(default=0.0)


class Watch:
    """Asks every gateway for what is open each ms (10 ms if that is much), many in a question."""

    def __init__(self, gateways: Sequence[GatewayClient], reports: Reports) -> None:
        self._gateways = list(gateways)
        self._reports = reports
        self._groups: set[_Group] = set()
        self._some = asyncio.Event()

    async def until_met(self, targets: Targets, timeout: float) -> float:
        """`time.perf_counter()` when the last live gateway agreed on all. Raises TimeoutError."""
        group = _Group(
            targets,
            [np.ones(len(targets.keys), np.bool_) for _ in self._gateways],
            asyncio.get_running_loop().create_future(),
        )
        self._groups.add(group)
        self._some.set()
        try:
            async with asyncio.timeout(timeout):
                return await group.done
        except TimeoutError:
            missing = [int(mask.sum()) for mask in group.open]
            raise TimeoutError(
                f"after {timeout:g} s gateways lack {missing} of {len(targets.keys)} changes"
                f" in VNI {targets.vni}"
            ) from None
        finally:
            self._groups.discard(group)

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(len(self._gateways)):
                tasks.create_task(self._follow(number))

    async def _follow(self, number: int) -> None:
        while True:
            if not self._groups:
                self._some.clear()
                await self._some.wait()
            await self._ask_all(number)
            self._settle()
            await asyncio.sleep(_POLL_S if len(self._groups) <= _MANY else _POLL_MANY_S)

    async def _ask_all(self, number: int) -> None:
        asked: list[tuple[_Group, npt.NDArray[np.intp]]] = []
        room = _REQUESTS * rsp.MAX_ENTRIES
        for group in self._groups:
            picked = np.flatnonzero(group.open[number])[:room]
            if len(picked):
                asked.append((group, picked))
                room -= len(picked)
            if not room:
                break
        if not asked:
            return
        vnis = np.concatenate([np.full(len(p), g.targets.vni, np.uint32) for g, p in asked])
        keys = np.concatenate([g.targets.keys[p] for g, p in asked])
        parts = await asyncio.gather(
            *(
                self._gateways[number].ask(
                    vnis[at : at + rsp.MAX_ENTRIES], keys[at : at + rsp.MAX_ENTRIES]
                )
                for at in range(0, len(keys), rsp.MAX_ENTRIES)
            )
        )
        now, at = time.perf_counter(), 0
        whole = [part for part in parts if part is not None]
        if len(whole) < len(parts):
            return
        macs = np.concatenate([group.targets.macs[picked] for group, picked in asked])
        vteps = np.concatenate([group.targets.vteps[picked] for group, picked in asked])
        met = _met(macs, vteps, np.concatenate(whole))
        for group, picked in asked:
            group.open[number][picked[met[at : at + len(picked)]]] = False
            at += len(picked)
            group.at = now

    def _settle(self) -> None:
        live = [self._reports.live(gateway.id) for gateway in self._gateways]
        if not any(live):
            return
        for group in list(self._groups):
            if not any(mask.any() for mask, counts in zip(group.open, live, strict=True) if counts):
                self._groups.discard(group)
                if not group.done.done():
                    group.done.set_result(group.at)
