"""Waiting until every live gateway answers as it should: many destinations, few questions."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from achelous_loadgen.gateways import GatewayClient, Reports
from achelous_shared import messages, rsp, subjects
from achelous_shared.bus import Bus
from achelous_shared.messages import BadMessage, RouteDelta
from achelous_shared.nats_wire import Received
from achelous_shared.routes import MalformedTable, unpack

_POLL_S: Final = 0.001
_MANY: Final = 32
_POLL_MANY_S: Final = 0.01
"""With more than ``_MANY`` on their way: asking shall not take the CPUs from what is measured."""
_UNHEARD_S: Final = 0.05
"""What no delta has named is asked for so often: a gateway may have it from a snapshot."""
_REQUESTS: Final = 8
"""At most so many questions to one gateway in one turn."""
_ROOM: Final = 4096
_REMEMBERED_S: Final = 2.0

Bools = npt.NDArray[np.bool_]
Slots = npt.NDArray[np.intp]
Tails = npt.NDArray[np.uint64]


class Targets(msgspec.Struct, frozen=True, eq=False):
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
    """``left``: targets that some live gateway has not met."""

    left: int
    done: "asyncio.Future[float]"

    def expire(self) -> None:
        if not self.done.done():
            self.done.set_exception(TimeoutError())


class _Table:
    """What is awaited, a slot for each destination: arrays (room,), by gateway (gateways, room)."""

    def __init__(self, gateways: int, room: int = _ROOM) -> None:
        self.vnis = np.zeros(room, np.uint32)
        self.keys = np.zeros((room, 16), np.uint8)
        self.macs = np.zeros((room, 6), np.uint8)
        self.vteps = np.zeros(room, np.uint32)
        self.turns = np.zeros(room, np.uint32)
        """How often a slot was given away: a reply may come when its question is void."""
        self.heard = np.zeros(room, np.bool_)
        """Whether a delta has named it, so that gateways may have it from now on."""
        self.open = np.zeros((gateways, room), np.bool_)
        """What has not been met yet."""
        self.groups: list[_Group | None] = [None] * room
        self._free = list(range(room - 1, -1, -1))

    def put(self, targets: Targets, heard: npt.ArrayLike, group: _Group) -> list[int]:
        """Slots for all targets, to be given back by `drop`."""
        count = len(targets.keys)
        while len(self._free) < count:
            self._grow()
        slots = self._free[-count:]
        del self._free[-count:]
        at = slice(slots[0], slots[0] + 1) if count == 1 else slots  # common, and cheaper so
        self.vnis[at] = targets.vni
        self.keys[at], self.macs[at] = targets.keys, targets.macs
        self.vteps[at] = targets.vteps
        self.turns[at] += 1
        self.heard[at] = heard
        self.open[:, at] = True
        for slot in slots:
            self.groups[slot] = group
        return slots

    def drop(self, slots: list[int]) -> None:
        """Nobody waits for these any more."""
        self.open[:, slots] = False
        for slot in slots:
            self.groups[slot] = None
        self._free += slots

    def _grow(self) -> None:
        room = len(self.vnis)
        for name in ("vnis", "keys", "macs", "vteps", "turns", "heard"):
            column = getattr(self, name)
            setattr(self, name, np.concatenate([column, np.zeros_like(column)]))
        self.open = np.concatenate([self.open, np.zeros_like(self.open)], axis=1)
        self.groups += [None] * room
        self._free = [*range(2 * room - 1, room - 1, -1), *self._free]


class _Named:
    """Destinations that deltas have named in the last seconds, by the end of their address.

    Its delta may be on the bus before the API's reply is here, which says what to wait for.
    """

    def __init__(self) -> None:
        self._young: set[int] = set()
        self._old: set[int] = set()
        self._since = time.monotonic()

    def add(self, tails: Tails) -> None:
        now = time.monotonic()
        if now - self._since > _REMEMBERED_S:
            self._young, self._old, self._since = set(), self._young, now
        self._young.update(tails.tolist())

    def among(self, tails: Tails) -> list[bool]:
        """Which of them (n,) were named."""
        return [tail in self._young or tail in self._old for tail in tails.tolist()]


class Watch:
    """Asks every gateway for what is awaited, many in a question, until it agrees.

    It begins with a destination when a delta on the bus has named it, and asks again each ms (10 ms
    if much is on its way); for what no delta has named, each 50 ms.
    """

    def __init__(self, gateways: Sequence[GatewayClient], reports: Reports, bus: Bus) -> None:
        self._gateways = list(gateways)
        self._reports = reports
        self._bus = bus
        self._table = _Table(len(self._gateways))
        self._named = _Named()
        self._awaited = 0
        self._live = [False] * len(self._gateways)
        self._news = [asyncio.Event() for _ in self._gateways]

    async def until_met(self, targets: Targets, timeout: float) -> float:
        """`time.perf_counter()` when the last live gateway agreed on all. Raises TimeoutError."""
        loop = asyncio.get_running_loop()
        group = _Group(len(targets.keys), loop.create_future())
        named = self._named.among(_tails(targets.keys))
        slots = self._table.put(targets, named, group)
        if not self._awaited or any(named):
            self._tell()
        self._awaited += len(slots)
        deadline = loop.call_later(timeout, group.expire)
        try:
            return await group.done
        except TimeoutError:
            missing = self._table.open[:, slots].sum(axis=1).tolist()
            raise TimeoutError(
                f"after {timeout:g} s gateways lack {missing} of {len(slots)} changes"
                f" in VNI {targets.vni}"
            ) from None
        finally:
            deadline.cancel()
            self._awaited -= len(slots)
            self._table.drop(slots)

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                self._bus.react(
                    subjects.ALL_ROUTES, self._on_deltas, max_payload=self._bus.max_payload
                )
            )
            for number in range(len(self._gateways)):
                tasks.create_task(self._follow(number))

    def _on_deltas(self, received: Received) -> tuple[()]:
        for data in received.payloads:
            with suppress(BadMessage, MalformedTable):
                self._on_delta(messages.decode(data, RouteDelta))
        return ()

    def _on_delta(self, delta: RouteDelta) -> None:
        tails = _tails(unpack(delta.entries)["ip"])
        self._named.add(tails)
        table = self._table
        slots = np.flatnonzero(table.open.any(axis=0) & (table.vnis == delta.vni))
        slots = slots[np.isin(_tails(table.keys[slots]), tails)]
        table.heard[slots] = True
        if len(slots):
            self._tell()

    def _tell(self) -> None:
        for news in self._news:
            news.set()

    async def _follow(self, number: int) -> None:
        news, table = self._news[number], self._table
        all_at = 0.0
        while True:
            news.clear()
            if not self._awaited:
                await news.wait()
                continue
            self._note_who_is_live()
            now = time.perf_counter()
            if everything := now >= all_at:
                all_at = now + _UNHEARD_S
            wanted = table.open[number] if everything else table.open[number] & table.heard
            slots = np.flatnonzero(wanted)
            if len(slots):
                await self._ask(number, slots[: _REQUESTS * rsp.MAX_ENTRIES])
                await asyncio.sleep(_POLL_S if len(slots) <= _MANY else _POLL_MANY_S)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(all_at - now):
                        await news.wait()

    async def _ask(self, number: int, slots: Slots) -> None:
        table = self._table
        vnis, keys, turns = table.vnis[slots], table.keys[slots], table.turns[slots]
        parts = await asyncio.gather(
            *(
                self._gateways[number].ask(
                    vnis[at : at + rsp.MAX_ENTRIES], keys[at : at + rsp.MAX_ENTRIES]
                )
                for at in range(0, len(keys), rsp.MAX_ENTRIES)
            )
        )
        now = time.perf_counter()
        whole = [part for part in parts if part is not None]
        if len(whole) < len(parts):
            return
        met = _met(table.macs[slots], table.vteps[slots], np.concatenate(whole))
        met &= table.turns[slots] == turns
        table.open[number, slots[met]] = False
        self._settle(slots[met], now)

    def _settle(self, slots: Slots, at: float) -> None:
        """Note which of these all live gateways have met."""
        table = self._table
        if not any(self._live):
            return
        for slot in slots[~table.open[self._live][:, slots].any(axis=0)].tolist():
            group, table.groups[slot] = table.groups[slot], None
            if group is None:
                continue
            group.left -= 1
            if not group.left and not group.done.done():
                group.done.set_result(at)

    def _note_who_is_live(self) -> None:
        live = [self._reports.live(gateway.id) for gateway in self._gateways]
        if live != self._live:
            self._live = live
            awaited = [slot for slot, group in enumerate(self._table.groups) if group is not None]
            self._settle(np.array(awaited, np.intp), time.perf_counter())


def _tails(keys: npt.NDArray[np.uint8]) -> Tails:
    """(n, 16) to (n,): what tells addresses of one VPC apart well enough."""
    return np.ascontiguousarray(keys[:, 8:]).view(np.uint64).reshape(-1)
