"""The gateways seen from the bus: who reports, and what each answers by RSP."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final
from uuid import UUID

import msgspec
import numpy as np
import numpy.typing as npt

from achelous_shared import messages, rsp, subjects
from achelous_shared.bus import Bus, BusError
from achelous_shared.messages import BadMessage, GatewayShow, ShowRequest
from achelous_shared.nats_wire import Received
from achelous_vswitch.gateways import STALE_HEARTBEAT_MS
from achelous_vswitch.gateways import Gateways as HostsView

_LOOK_S: Final = 0.1
_ASK_S: Final = 1.0


class _Head(msgspec.Struct):
    """As much of a gateway's report as is read here, each 5 ms at most."""

    gateway_id: UUID
    serving: bool
    revisions: bytes


class Reports:
    """When each gateway last said that it serves."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._heard: dict[UUID, float] = {}
        self._decoder = msgspec.msgpack.Decoder(_Head)
        self.told: Callable[[UUID, bytes], None] = lambda _, __: None
        """Called with each report's gateway and its packed `routes.REVISION`."""

    def live(self, gateway_id: UUID) -> bool:
        """Whether it reported lately that its tables are in step."""
        heard = self._heard.get(gateway_id, float("-inf"))
        return time.monotonic() - heard <= STALE_HEARTBEAT_MS / 1000

    async def run(self) -> None:
        """Listen until cancelled."""
        await self._bus.react(
            subjects.ALL_GATEWAYS_APPLIED, self._on_reports, max_payload=self._bus.max_payload
        )

    def _on_reports(self, received: Received) -> tuple[()]:
        for data in received.payloads:
            with suppress(msgspec.DecodeError):
                report = self._decoder.decode(data)
                if report.serving:
                    self._heard[report.gateway_id] = time.monotonic()
                self.told(report.gateway_id, report.revisions)
        return ()


async def stand_in_for_probes(reports: Reports, views: Iterable[HostsView]) -> None:
    """Tell simulated hosts, which cannot probe, which gateways are live, until cancelled.

    A probe's answer has the age of the gateway's heartbeat; here that is the age of its last
    report.
    """
    known: dict[int, list[tuple[UUID, bool]]] = {}
    while True:
        for view in views:
            for gateway in view:
                gateway.fresh = reports.live(gateway.gateway_id)
                gateway.heard = gateway.heard or gateway.fresh
            now = [(gateway.gateway_id, gateway.fresh) for gateway in view]
            if known.get(id(view)) != now:
                view.share_out()
                known[id(view)] = now
        await asyncio.sleep(_LOOK_S)


class GatewayClient:
    """Asks one gateway, on ``bus`` as vSwitches do and on ``operators`` as the controller does."""

    def __init__(self, bus: Bus, operators: Bus, gateway_id: UUID) -> None:
        self.id = gateway_id
        self._bus = bus
        self._operators = operators
        self._numbers = itertools.count(1)

    async def ask(
        self, vnis: npt.ArrayLike, keys: npt.ArrayLike, *, timeout: float = _ASK_S
    ) -> rsp.Entries | None:
        """Its replies for up to `rsp.MAX_ENTRIES` keys, in their order; None: no answer."""
        number = next(self._numbers) & 0xFFFFFFFF
        request = rsp.encode(rsp.MessageType.REQUEST, number, rsp.requests(vnis, keys))
        try:
            data = await self._bus.request(subjects.rsp(self.id), request, timeout=timeout)
            message = rsp.decode(data, rsp.MessageType.REPLY)
        except (BusError, rsp.RspError):
            return None
        return message.entries if len(message.entries) == len(np.asarray(keys)) else None

    async def show(self) -> GatewayShow | None:
        """Its tables in short; None: no answer."""
        try:
            data = await self._operators.request(
                subjects.show("gateway", self.id),
                messages.encode(ShowRequest(limit=10_000)),
                timeout=5.0,
            )
            return messages.decode(data, GatewayShow)
        except (BusError, BadMessage):
            return None
