"""Asking gateways by RSP: a live one, and if it is silent for a moment the next one as well."""

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

import numpy as np
import numpy.typing as npt

from achelous_shared import rsp, rsp_changes, subjects
from achelous_shared.bus import Bus, BusError
from achelous_shared.rsp import Capability, Options
from achelous_shared.rsp_changes import Changes, Status
from achelous_vswitch.gateways import Gateway, Gateways
from achelous_vswitch.hedge import Hedged
from achelous_vswitch.metrics import Metrics

T = TypeVar("T")

_ENCAP_BYTES: Final = 50
"""Outer IPv4, UDP, VXLAN and inner Ethernet."""

_OFFERED: Final = int(Capability.CHANGES | Capability.PUSH | Capability.GAPS)

_PATIENCE_S: Final = 0.05
"""An answer takes a millisecond or a few: who is silent for longer may have died just now."""

log = logging.getLogger(__name__)


class RspClient:
    """RSP requests over the bus, each answered within ``timeout`` seconds by one gateway or not."""

    def __init__(
        self,
        bus: Bus,
        gateways: Gateways,
        timeout: float,
        metrics: Metrics,
        options: Callable[[], Options] = lambda: Options(Capability.CHANGES),
    ) -> None:
        """``options``: what this host offers, asked for each request."""
        self._bus = bus
        self._gateways = gateways
        self._timeout = timeout
        self._metrics = metrics
        self._options = options
        self._ids = itertools.count(1)
        self._agreed: dict[UUID, Options] = {}
        self._sent = metrics.rsp_bytes.labels("sent")
        self._received = metrics.rsp_bytes.labels("received")
        self._answered = metrics.rsp.labels("answered")

    def agreed(self, gateway: Gateway) -> Options | None:
        """What a gateway and this host have in common; None before it has answered."""
        return self._agreed.get(gateway.gateway_id)

    def groups_of(self, vnis: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
        """The groups of gateways (n,) that serve these VPCs."""
        return self._gateways.groups_of(vnis)

    def batches(self, entries: rsp.Entries) -> Iterator[rsp.Entries]:
        """Any number of request entries as parts that can be asked: each is of one group."""
        groups = self.groups_of(entries["vni"].astype(np.uint32))
        for group in set(groups.tolist()):
            part = entries[groups == group]
            for at in range(0, len(part), rsp.MAX_ENTRIES):
                yield part[at : at + rsp.MAX_ENTRIES]

    def in_turn(self, group: int) -> list[Gateway]:
        """The gateways of a group to ask, best first; none while the bus is away.

        What is asked then would all be sent when it is back.
        """
        return self._gateways.in_turn(group) if self._bus.connected else []

    def hedged(
        self, turn: Iterable[Gateway], ask: Callable[[Gateway], Awaitable[T]]
    ) -> Hedged[Gateway, T]:
        """Ask gateways one after the other."""
        return Hedged(turn, ask, _PATIENCE_S)

    async def ask(self, entries: rsp.Entries, first: Gateway | None = None) -> rsp.Entries | None:
        """The reply entries, one for each of ``entries`` (1..`rsp.MAX_ENTRIES`) in their order.

        All are of VPCs of one group. None if no gateway answered. A reply that does not echo what
        was asked counts as none. ``first``: the gateway to begin with.
        """
        [group] = self.groups_of(entries["vni"][:1].astype(np.uint32)).tolist()
        turn = self.in_turn(group)
        if first in turn:
            turn = [first, *(gateway for gateway in turn if gateway is not first)]
        async with self.hedged(turn, lambda gateway: self._ask(gateway, entries)) as answers:
            async for found in answers:
                if found is not None:
                    return found
        return None

    async def _ask(self, gateway: Gateway, entries: rsp.Entries) -> rsp.Entries | None:
        message_id = self._next_id()
        request = rsp.encode(rsp.MessageType.REQUEST, message_id, entries, self._options())
        read = partial(_replies, message_id=message_id, asked=entries)
        return await self._exchange(gateway, request, read)

    async def watch(self, gateway: Gateway, entries: rsp.Entries) -> Changes | None:
        """What one gateway says of ``entries`` (`rsp_changes.WATCH`), each in order; or None."""
        message_id = self._next_id()
        request = rsp_changes.encode_watches(message_id, entries, self._options())
        read = partial(_changes, message_id=message_id, asked=entries)
        return await self._exchange(gateway, request, read)

    async def _exchange(
        self, gateway: Gateway, request: bytes, read: Callable[[bytes], tuple[Options, T]]
    ) -> T | None:
        started = time.monotonic()
        try:
            subject = subjects.rsp(gateway.gateway_id)
            data = await self._bus.request(subject, request, timeout=self._timeout)
            self._sent.inc(len(request))
            self._received.inc(len(data))
            options, found = read(data)
        except asyncio.CancelledError:
            self._metrics.rsp.labels("overtaken").inc()
            raise
        except BusError:
            self._metrics.rsp.labels("timeout").inc()
            return None
        except rsp.RspError as error:
            self._metrics.rsp.labels("garbage").inc()
            log.warning("RSP reply of gateway %s: %s", gateway.name, error)
            return None
        self._agreed[gateway.gateway_id] = options
        self._answered.inc()
        self._metrics.rsp_s.observe(time.monotonic() - started)
        return found

    def _next_id(self) -> int:
        return next(self._ids) & 0xFFFFFFFF


def offered(config: Any) -> Options:
    """What a host of this packet path's ``config`` offers."""
    mtu = int(config["underlay_mtu"])
    return Options(_OFFERED, min(max(0, mtu - _ENCAP_BYTES), 0xFFFF))


def _replies(data: bytes, message_id: int, asked: rsp.Entries) -> tuple[Options, rsp.Entries]:
    message = rsp.decode(data, rsp.MessageType.REPLY)
    _check_echo(message.id, message_id, message.entries, asked)
    _check_same(message.entries["key"], asked["key"])
    return message.options, message.entries


def _changes(data: bytes, message_id: int, asked: rsp.Entries) -> tuple[Options, Changes]:
    changes = rsp_changes.decode_changes(data)
    _check_echo(changes.head.id, message_id, changes.entries, asked)
    echoed = changes.entries["status"] != Status.GAP
    _check_same(changes.entries["since"][echoed], asked["since"][echoed])
    return changes.head.options, changes


def _check_echo(got_id: int, message_id: int, got: rsp.Entries, asked: rsp.Entries) -> None:
    if got_id != message_id:
        raise rsp.RspError(f"id {got_id}, expected {message_id}")
    if len(got) != len(asked):
        raise rsp.RspError(f"{len(got)} entries in answer to {len(asked)}")
    _check_same(got["vni"], asked["vni"])


def _check_same(got: npt.NDArray[Any], asked: npt.NDArray[Any]) -> None:
    if not np.array_equal(got, asked):
        raise rsp.RspError("its entries are not those that were asked for, in their order")
