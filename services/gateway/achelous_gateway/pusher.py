"""Sends routes unasked to hosts for which packets were relayed."""

import asyncio
import logging
from typing import Final

import numpy as np

from achelous_gateway.relay import Relay
from achelous_gateway.rsp_server import RspServer
from achelous_gateway.stats import Stats
from achelous_shared import rsp, subjects
from achelous_shared.bus import Bus, BusError
from achelous_shared.rsp import Capability, MessageType, Options

log = logging.getLogger(__name__)

_GATHER_S: Final = 0.001
_READ: Final = 8 * rsp.MAX_ENTRIES
_OPTIONS: Final = Options(Capability.PUSH)


class Pusher:
    """Turns the relay's events into PUSH messages, one for each host of a batch."""

    def __init__(self, bus: Bus, relay: Relay, server: RspServer, stats: Stats) -> None:
        self._bus = bus
        self._relay = relay
        self._server = server
        self._stats = stats

    async def run(self) -> None:
        """Until cancelled."""
        events = self._relay.relayed_for
        if events is None:
            return
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(events.fd, ready.set)
        try:
            while True:
                await ready.wait()
                await asyncio.sleep(_GATHER_S)
                ready.clear()
                seen = events.read(_READ)
                for vtep in np.unique(seen["vtep"]).tolist():
                    here = seen[seen["vtep"] == vtep]
                    await self._push(vtep, self._server.routes(here["vni"], here["ip"]))
        finally:
            loop.remove_reader(events.fd)

    async def _push(self, vtep: int, routes: rsp.Entries) -> None:
        for at in range(0, len(routes), rsp.MAX_ENTRIES):
            part = routes[at : at + rsp.MAX_ENTRIES]
            try:
                data = rsp.encode(MessageType.PUSH, 0, part, _OPTIONS)
                await self._bus.publish_bytes(subjects.push(vtep), data)
            except BusError as error:
                log.debug("pushed routes are lost, and will be asked for: %s", error)
            else:
                self._stats.rsp_pushed += len(part)
